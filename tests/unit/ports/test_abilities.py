"""An ability that a broker lacks is an error with a remedy, before anything is asked of it."""

from __future__ import annotations

from unittest.mock import NonCallableMock

import pytest

from callcast.brokers.memory import MemoryBroker
from callcast.core.errors import Misuse
from callcast.ports.broker import (
    Browses,
    Rewinds,
    Schedules,
    Source,
    Traits,
    Transacts,
    Unsettled,
    need,
)
from callcast.testing import ManualClock


def test_a_broker_that_has_the_ability_is_given_back_as_one_with_it() -> None:
    broker = MemoryBroker(ManualClock())
    assert need(broker, Browses) is broker
    assert need(broker, Schedules).delay_max > 0


def test_an_ability_that_is_not_there_is_named_with_broker_and_remedy() -> None:
    plain = NonCallableMock(spec=["traits"], traits=Traits(name="plain"))
    with pytest.raises(
        Misuse, match="plain broker lacks the ability Rewinds: use a broker that keeps"
    ):
        need(plain, Rewinds)
    with pytest.raises(Misuse, match="lacks the ability Transacts: use another broker"):
        need(MemoryBroker(ManualClock()), Transacts)


def test_a_source_is_written_as_topic_and_group() -> None:
    assert str(Source("orders.placed", "mail")) == "orders.placed/mail"


def test_verdicts_that_were_not_carried_out_are_counted_in_words() -> None:
    error = Unsettled(lost=(), failed=(), why="disk full")
    assert str(error).endswith("could not be settled: disk full")
    assert (error.lost, error.failed) == ((), ())
