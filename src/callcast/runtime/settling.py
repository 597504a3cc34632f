"""Settling: verdicts gather while the previous batch of them is on its way to the broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from callcast.core.outcome import Outcome
from callcast.ports.broker import Consumer, Delivery, Unsettled
from callcast.runtime.backoff import Backoff
from callcast.runtime.bell import Bell
from callcast.runtime.ports import Ports

Verdict: TypeAlias = tuple[Delivery, Outcome]


class Settling:
    """Hands verdicts to a consumer, in the order in which they came, until each is settled or lost.

    What the broker refuses is settled again, after a pause and before what came later. `settled`
    hears of each batch what was carried out and what was lost, `failed` hears why one was not.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        ports: Ports,
        settled: Callable[[Sequence[Delivery], Sequence[Delivery]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._consumer = consumer
        self._clock = ports.clock
        self._backoff = Backoff(ports.dice)
        self._settled = settled
        self._failed = failed
        self._waiting: list[Verdict] = []  # appended by `add`, taken as a whole by `run`
        self._under_way = 0
        self._pause = 0.0
        self._bell = Bell()  # rung when `run` has something to do

    @property
    def failures(self) -> int:
        """How many batches in a row were refused, wholly or in part."""
        return self._backoff.failures

    @property
    def count(self) -> int:
        """How many verdicts are not settled yet."""
        return len(self._waiting) + self._under_way

    def add(self, delivery: Delivery, outcome: Outcome) -> None:
        """Have this verdict settled with the next batch."""
        self._waiting.append((delivery, outcome))
        if self._bell.waiting is not None:
            self._bell.ring()

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            if not self._waiting:
                await self._bell.wait()
            batch, self._waiting = self._waiting, []
            self._under_way = len(batch)
            if await self._settle(batch):
                await self._clock.sleep(self._pause)

    async def _settle(self, batch: Sequence[Verdict]) -> bool:
        """Settle one batch and tell what came of it; whether some of it is still ours."""
        again: Sequence[Verdict] = ()
        lost: Sequence[Delivery] = ()
        trouble: Exception | None = None
        try:
            await self._consumer.settle(batch)
        except Unsettled as error:
            lost = error.lost
            if error.failed:
                trouble = error
                failed = set(error.failed)
                again = [verdict for verdict in batch if verdict[0] in failed]
        except Exception as error:  # noqa: BLE001 - whatever it was, the verdicts are still ours
            trouble, again = error, batch
        self._waiting = [*again, *self._waiting]
        self._under_way = 0
        if trouble is None:
            self._backoff.reset()
        else:
            self._pause = self._backoff.next()
        if not again:
            self._settled([delivery for delivery, _ in batch], lost)
        elif len(again) < len(batch):
            kept = {delivery for delivery, _ in again}
            self._settled([delivery for delivery, _ in batch if delivery not in kept], lost)
        if trouble is not None:
            self._failed(trouble)
        return trouble is not None
