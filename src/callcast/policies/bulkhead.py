"""The bulkhead: so many at a time, so many waiting in order; its layer."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from callcast.core.errors import BulkheadFull
from callcast.core.work import Next, Work
from callcast.policies.options import Bulkhead
from callcast.policies.telling import tell_of
from callcast.policies.time_left import expired
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

    | event         | a slot is free, nobody waits | queue has room | else |
    |---------------|------------------------------|----------------|------|
    | join(gate)    | TAKEN                        | QUEUED         | FULL |

    | event         | somebody waits               | nobody waits     |
    |---------------|------------------------------|------------------|
    | leave         | the first gets the slot      | the slot is free |
    | quit, waiting | its place is free            |                  |
    | quit, served  | as leave                     | as leave         |

    Free slots are the items of a deque, which is thread-safe by itself, also without the GIL: where
    nobody may wait and none is owed, a slot is taken and given back without the lock. Gates to open
    are returned, for the caller to open outside the lock.
    """

    def __init__(self, options: Bulkhead, *, lock: AbstractContextManager[object]) -> None:
        self._limit = options.limit
        self._queue = options.queue
        self._lock = lock
        self._free: deque[None] = deque([None] * options.limit)
        self._waiting: deque[Gate] = deque()  # this and what follows are changed under the lock
        self._owed = 0  # slots that are still out after the limit was lowered
        self._is_plain = not options.queue

    @property
    def inside(self) -> int:
        """Calls under way."""
        return self._limit + self._owed - len(self._free)

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    @property
    def limit(self) -> int:
        """Calls that may be under way."""
        return self._limit

    def take(self) -> bool:
        """Take a slot if there is one and nobody waits for it."""
        return not self._waiting and self._grab()

    def join(self, gate: Gate) -> Place:
        """Take a slot, or stand at the end of the queue; `gate` opens when the slot is there."""
        with self._lock:
            if self.take():
                return Place.TAKEN
            if len(self._waiting) >= self._queue:
                return Place.FULL
            self._waiting.append(gate)
            return Place.QUEUED

    def leave(self) -> Gate | None:
        """Give a slot back; the gate of the one who gets it."""
        if self._is_plain:
            self._free.append(None)
            if not self._queue:  # else somebody may have begun to wait meanwhile
                return None
            with self._lock:
                return self._serve()
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
            self._is_plain = False
            self._owed += self._limit - limit
            self._limit, self._queue = limit, queue
            while self._owed > 0 and self._grab():
                self._owed -= 1
            while self._owed < 0:
                self._free.append(None)
                self._owed += 1
            served: list[Gate] = []
            while (gate := self._serve()) is not None:
                served.append(gate)
            self._is_plain = not (queue or self._owed or self._waiting)
            return served

    def _leave(self) -> Gate | None:
        if self._owed:
            self._owed -= 1
            return None
        self._free.append(None)
        return self._serve()

    def _serve(self) -> Gate | None:
        return self._waiting.popleft() if self._waiting and self._grab() else None

    def _grab(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True


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
            if self._observer.is_tracing:
                with self._observer.occupying(work):
                    return await proceed(work)
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
            tell_of(self._observer, work, Rejected(work.name, work.peer, "bulkhead"))
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
                tell_of(self._observer, work, Rejected(work.name, work.peer, "bulkhead"))
                raise expired(work, 0.0) from error
            raise
