"""A clock that a test moves by hand: nothing waits for real, nothing fails now and then."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Self

TURNS_MAX = 100_000
"""Turns of the loop after which tasks that never come to rest are an error, not a hang."""
TURNS_BLIND = 50
"""Turns given to a loop that does not show whether anything is ready (uvloop)."""


class ManualClock:
    """Implements `ports.clock.Clock`; time stands still until `advance`.

    Sleepers and `expire_at` blocks wake in the order of their times, and each sees its own time
    on `now()`. `coarse` changes nothing here: every wake-up is exact. One event loop at a time.
    """

    def __init__(self, *, now: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._ahead = wall - now
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []  # a heap
        self._count = 0

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch; moves with `now()` and by `step_wall`."""
        return self._now + self._ahead

    def step_wall(self, delta: float) -> None:
        """Set the wall clock forward (or back) by `delta` seconds, as an operator or NTP does."""
        self._ahead += delta

    async def sleep(self, delay: float) -> None:
        """Return once `advance` has moved the clock `delay` seconds on."""
        if delay <= 0:
            await _Turn()
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_at(self._now + delay, lambda: None if woken.done() else woken.set_result(None))
        await woken

    def expire_at(self, when: float, *, coarse: bool = True) -> _Expiry:
        """Cancel the enclosed block at `when` and raise `TimeoutError` from it."""
        del coarse  # late by nothing, whatever the caller would put up with
        return _Expiry(self, when)

    async def advance(self, seconds: float) -> None:
        """Move the clock on, stopping at each alarm on the way until all woken tasks wait again.

        Raises `RuntimeError` when tasks never come to rest.
        """
        end = self._now + seconds
        await self.rest()
        while self._alarms and self._alarms[0][0] <= end:
            when, _, ring = heapq.heappop(self._alarms)
            self._now = max(self._now, when)
            ring()
            await self.rest()
        self._now = end
        await self.rest()

    async def rest(self) -> None:
        """Let every task run until all of them wait for something; time stands still."""
        loop = asyncio.get_running_loop()
        ready = getattr(loop, "_ready", None)  # asyncio's own queue; no public way to ask
        for turn in range(TURNS_MAX):
            await _Turn()
            if ready is None and turn >= TURNS_BLIND:
                return
            if ready is not None and not ready:
                return
        raise RuntimeError(f"tasks did not come to rest within {TURNS_MAX} turns of the loop")

    def call_at(self, when: float, ring: Callable[[], None]) -> None:
        """Have `advance` call `ring` when it comes to `when`."""
        self._count += 1
        heapq.heappush(self._alarms, (when, self._count, ring))


class _Turn:
    """Awaited, it lets the loop turn once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class _Expiry:
    """The block of `expire_at`, in the manner of `asyncio.timeout_at`."""

    def __init__(self, clock: ManualClock, when: float) -> None:
        self._clock = clock
        self._when = when
        self._task: asyncio.Task[object] | None = None
        self._asked_before = 0
        self._is_expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("expire_at bounds a block inside a task")
        self._task = task
        self._asked_before = task.cancelling()
        if self._when <= self._clock.now():
            asyncio.get_running_loop().call_soon(self._ring)
        else:
            self._clock.call_at(self._when, self._ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is None or not self._is_expired:
            return
        # A cancellation from elsewhere that came meanwhile passes as it is.
        if task.uncancel() <= self._asked_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _ring(self) -> None:
        if self._task is not None:
            self._is_expired = True
            self._task.cancel()
