"""A message's time in the queue ends where its handling begins."""

from __future__ import annotations

from worker_parts import PLAIN, Recorder, delivery, ports_with

from callcast.core.outcome import DONE
from callcast.ports.observer import Settled
from callcast.runtime.ledger import Ledger
from callcast.runtime.subscription import Subscription
from callcast.testing import ManualClock


async def test_the_time_of_the_handling_is_not_time_in_the_queue() -> None:
    clock, observer = ManualClock(), Recorder()

    async def run(_work: object) -> object:
        return DONE

    subscription = Subscription(
        source=PLAIN,
        contract=None,
        service="s",
        handler="h",
        run=run,  # type: ignore[arg-type]
    )
    ledger = Ledger(subscription, ports_with(clock, observer))
    ledger.enter(delivery("m-1"), DONE, ran=3.0)
    ledger.enter(delivery("m-2"), DONE, ran=clock.wall() + 9.0)
    assert [fact.queue_time for fact in observer.of(Settled)] == [clock.wall() - 3.0, 0.0]
