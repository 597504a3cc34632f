"""Verdicts are told with their times, and in the name of the messages they concern."""

from __future__ import annotations

import pytest
from worker_parts import PLAIN, Recorder, delivery, ports_with

from callcast.core.context import AMBIENT
from callcast.core.outcome import DONE, Dead, Outcome, Release
from callcast.ports.observer import LeaseLost, Settled
from callcast.runtime.ledger import NAMED_MAX, Ledger
from callcast.runtime.subscription import Subscription
from callcast.testing import ManualClock


async def run(_work: object) -> object:
    return DONE


SUBSCRIPTION = Subscription(
    source=PLAIN,
    contract=None,
    service="s",
    handler="h",
    run=run,  # type: ignore[arg-type]
)


def test_the_time_of_the_handling_is_not_time_in_the_queue() -> None:
    clock, observer = ManualClock(), Recorder()
    ledger = Ledger(SUBSCRIPTION, ports_with(clock, observer))
    ledger.enter(delivery("m-1"), DONE, ran=3.0)
    ledger.enter(delivery("m-2"), DONE, ran=clock.wall() + 9.0)
    assert [fact.queue_time for fact in observer.of(Settled)] == [clock.wall() - 3.0, 0.0]


@pytest.mark.parametrize("outcome", [DONE, Dead("no use"), Release(reason="stopped")])
def test_each_verdict_is_told_in_the_name_of_its_message(outcome: Outcome) -> None:
    observer = Recorder()
    Ledger(SUBSCRIPTION, ports_with(ManualClock(), observer)).enter(
        delivery("m-1"), outcome, ran=1.0
    )
    assert observer.names == ["m-1"]
    assert AMBIENT.get() is None


def test_lost_leases_are_told_with_the_ids_of_their_first_messages() -> None:
    observer = Recorder()
    ledger = Ledger(SUBSCRIPTION, ports_with(ManualClock(), observer))
    ledger.lost([delivery("m-0")])
    ledger.lost([delivery(f"m-{number}") for number in range(300)])
    assert observer.names == ["m-0", ""]
    one, many = observer.of(LeaseLost)
    assert isinstance(one, LeaseLost)
    assert isinstance(many, LeaseLost)
    assert one.message_ids == one.correlation_ids == ("m-0",)
    assert many.count == 300
    assert many.message_ids == tuple(f"m-{number}" for number in range(NAMED_MAX))
