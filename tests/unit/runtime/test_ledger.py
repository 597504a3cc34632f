"""A message's time in the queue ends where its handling begins."""

from __future__ import annotations

from worker_parts import PLAIN, Recorder, delivery, ports_with

from callcast.core.outcome import DONE, Dead
from callcast.ports.observer import Settled
from callcast.runtime.ledger import Ledger
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


class Busy(Recorder):
    """Wants to hear of trouble only."""

    hears_success = False


def test_what_went_well_is_not_told_to_those_who_do_not_want_it() -> None:
    observer = Busy()
    ledger = Ledger(SUBSCRIPTION, ports_with(ManualClock(), observer))
    ledger.enter(delivery("m-1"), DONE, ran=3.0)
    ledger.enter(delivery("m-2"), Dead("no use"), ran=3.0)
    assert [fact.outcome for fact in observer.of(Settled)] == ["dead"]


def test_the_time_of_the_handling_is_not_time_in_the_queue() -> None:
    clock, observer = ManualClock(), Recorder()
    ledger = Ledger(SUBSCRIPTION, ports_with(clock, observer))
    ledger.enter(delivery("m-1"), DONE, ran=3.0)
    ledger.enter(delivery("m-2"), DONE, ran=clock.wall() + 9.0)
    assert [fact.queue_time for fact in observer.of(Settled)] == [clock.wall() - 3.0, 0.0]
