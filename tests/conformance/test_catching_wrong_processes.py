"""The cases with child processes are worth something: where the children's broker is wrong they fail.

The other cases are tried in `test_catching_wrong_brokers`, without processes.
"""

from __future__ import annotations

import pytest
import wrong_processes
from test_sqlite_conformance import TestSqlite as Right

from callcast.testing.broker_suite.processes import Processes

FAULTS = {
    "forgetful": "what_kills_its_process_ten_times_is_dead_and_its_neighbours_are_handled",
    "blaming": "what_kills_its_process_spares_its_neighbours_of_an_ordered_source",
    "hasty": "what_a_killed_process_held_is_handled_by_another",
    "lonely": "processes_share_the_messages_of_a_group",
    "lazy": "what_many_processes_publish_arrives",
}


class Wrong(Right):
    """The embedded broker, right in this process and wrong in its children."""

    __test__ = False


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_between_processes_fails_its_sentence(fault: str) -> None:
    wrong = Wrong()
    wrong.opener = f"{wrong_processes.__name__}:open_{fault}"
    with pytest.raises(AssertionError) as caught:
        getattr(wrong, f"test_{FAULTS[fault]}")()
    assert "Traceback" not in str(caught.value), "a child failed, and not the sentence"


def test_each_sentence_with_processes_has_its_fault() -> None:
    sentences = {name.removeprefix("test_") for name in vars(Processes) if name[:5] == "test_"}
    assert sentences == set(FAULTS.values())
