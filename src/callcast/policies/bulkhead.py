"""The bulkhead: so many at a time, so many waiting in order; its layer."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from callcast.core.errors import BulkheadFull
from callcast.core.work import Next, Work
from callcast.policies.deadline import expired
from callcast.policies.options import Bulkhead
from callcast.ports.clock import Clock
from callcast.ports.observer import Observer, Rejected
from callcast.ports.tasks import Gate

R = TypeVar("R")


class Place(enum.Enum):
    """What a caller got."""

    TAKEN = "taken"
    QUEUED = "queued"
    FULL = "full"


class Slots:
    """Who is inside and who waits. Thread-safe with a `lock` that is.

    | event          | inside < limit, none waits | queue has room   | else |
    |----------------|----------------------------|------------------|------|
    | join(gate)     | TAKEN                      | QUEUED           | FULL |

    | event          | somebody waits             | nobody waits     |
    |----------------|----------------------------|------------------|
    | leave          | the first gets the slot    | the slot is free |
    | quit, waiting  | its place is free          |                  |
    | quit, served   | as leave                   | as leave         |

    Gates to open are returned, for the caller to open outside the lock.
    """

    def __init__(self, options: Bulkhead, *, lock: AbstractContextManager[object]) -> None:
        self._limit = options.limit
        self._queue = options.queue
        self._lock = lock
        self._inside = 0  # this and what follows are changed under the lock
        self._waiting: deque[Gate] = deque()

    @property
    def inside(self) -> int:
        """Calls under way."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        return self._limit

    def take(self) -> bool:
        """Take a slot if there is one."""
        with self._lock:
            if self._inside >= self._limit or self._waiting:
                return False
            self._inside += 1
            return True

    def join(self, gate: Gate) -> Place:
        """Take a slot, or stand at the end of the queue; `gate` opens when the slot is there."""
        with self._lock:
            if self._inside < self._limit and not self._waiting:
                self._inside += 1
                return Place.TAKEN
            if len(self._waiting) >= self._queue:
                return Place.FULL
            self._waiting.append(gate)
            return Place.QUEUED

    def leave(self) -> Gate | None:
        """Give a slot back; the gate of the one who gets it."""
        with self._lock:
            return self._leave()

    def quit(self, gate: Gate) -> Gate | None:
        """Stop waiting; if the slot had already come, the gate of the one who gets it now."""
        with self._lock:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return None
            return self._leave()

    def resize(self, limit: int, queue: int) -> Sequence[Gate]:
        """Set both limits, live; the gates of those who go in now. Who is inside stays inside."""
        Bulkhead(limit, queue)  # refuses what is out of range
        with self._lock:
            self._limit = limit
            self._queue = queue
            free = max(0, limit - self._inside)
            gates = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self._inside += len(gates)
            return gates

    def _leave(self) -> Gate | None:
        if self._waiting and self._inside <= self._limit:
            return self._waiting.popleft()
        self._inside -= 1
        return None


class BulkheadLayer:
    """CALL: takes a slot for each attempt and gives it back, however the attempt ends.

    Raises `BulkheadFull` when neither slot nor place in the queue is free, `Expired` when the
    deadline passed in the queue: the callee was not contacted.
    """

    def __init__(
        self, slots: Slots, *, clock: Clock, observer: Observer, gate: Callable[[], Gate]
    ) -> None:
        self._slots = slots
        self._take = slots.take
        self._leave = slots.leave
        self._clock = clock
        self._observer = observer
        self._gate = gate

    def __repr__(self) -> str:
        return f"Bulkhead({self._slots.limit})"

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Make the attempt when there is room."""
        if not self._take():
            await self._wait(work)
        try:
            return await proceed(work)
        finally:
            after = self._leave()
            if after is not None:
                after.open()

    async def _wait(self, work: Work) -> None:
        gate = self._gate()
        place = self._slots.join(gate)
        if place is Place.QUEUED:
            await self._queue(work, gate)
        elif place is Place.FULL:
            self._observer.tell(Rejected(work.name, work.peer, "bulkhead"))
            raise BulkheadFull(
                f"{work.name!r}: {self._slots.inside} calls are under way and"
                f" {self._slots.waiting} wait, so it was not sent; raise Bulkhead(limit=, queue=)",
                id=work.id or None,
            )

    async def _queue(self, work: Work, gate: Gate) -> None:
        try:
            if work.deadline is None:
                await gate.wait()
            else:
                with self._clock.expire_at(work.deadline, coarse=False):
                    await gate.wait()
        except BaseException as error:
            after = self._slots.quit(gate)
            if after is not None:
                after.open()
            if isinstance(error, TimeoutError):
                self._observer.tell(Rejected(work.name, work.peer, "bulkhead"))
                raise expired(work, 0.0) from error
            raise
