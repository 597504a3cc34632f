"""The suite is worth something: each deliberate fault makes exactly its own sentences false."""

import pytest
import wrong_delivering
import wrong_operating
import wrong_publishing
import wrong_settling
import wrong_waiting
from wrong_brokers import FAULTS, Memory, failing, fault

from callcast.testing.broker_suite.processes import Processes

FAULTS_MIN = 15
PLAIN = {"a_broker_closes_before_it_was_used"}
"""What fails only together with many: half of the cases close a broker that they did not use."""


def test_a_right_broker_fails_nothing() -> None:
    assert failing() == set()


def test_there_are_enough_faults() -> None:
    modules = [
        wrong_delivering,
        wrong_operating,
        wrong_publishing,
        wrong_settling,
        wrong_waiting,
    ]
    assert all(module.fault is fault for module in modules)  # they register their faults
    assert len(FAULTS) >= FAULTS_MIN


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_fails_the_sentences_that_name_it(name: str) -> None:
    with FAULTS[name].patch():
        assert failing() == FAULTS[name].sentences


def test_each_sentence_is_failed_by_some_fault() -> None:
    sentences = {
        name.removeprefix("test_")
        for name in dir(Memory)
        if name.startswith("test_") and name not in vars(Processes)
    }
    failed = {sentence for one in FAULTS.values() for sentence in one.sentences}
    assert sentences - failed == PLAIN


def test_each_sentence_about_a_fault_is_one_of_the_suite() -> None:
    for one in FAULTS.values():
        assert one.sentences
        for sentence in one.sentences:
            assert hasattr(Memory, f"test_{sentence}")
