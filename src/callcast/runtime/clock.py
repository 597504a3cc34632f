"""`Clock` on asyncio: the one place that knows what time it is."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task, get_running_loop
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn
from weakref import WeakKeyDictionary

from callcast.core.errors import Misuse

TICK = 0.25
"""Seconds between two looks at all coarse expiries of a loop: handlers are bounded in minutes."""


class AsyncioClock:
    """The machine's clocks and the running loop's timers; implements `ports.clock.Clock`.

    One clock serves any number of loops; what it arms on a loop stays on that loop.
    """

    def __init__(self) -> None:
        self._tickers: WeakKeyDictionary[asyncio.AbstractEventLoop, Ticker] = WeakKeyDictionary()
        # The ticker asked for last: nearly always there is one loop, and a weak look-up costs more
        # than all the rest of a coarse expiry. One assignment, so threads see the old or the new.
        self.latest: Ticker | None = None

    # The functions themselves: a method around them would double what asking the time costs, and
    # every call and message asks several times. Monotonic time is the same for all loops and
    # threads of the process; the wall clock steps when the machine's clock is set.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds, never earlier; 0 or less lets others run once."""
        until = time.monotonic() + delay
        await asyncio.sleep(delay)
        # A loop may wake a timer up to its clock's resolution early (uvloop: a millisecond).
        if (left := until - time.monotonic()) > 0:
            await self.sleep(left)

    def expire_at(self, when: float, *, coarse: bool = True) -> AbstractContextManager[object]:
        """Bound a block; see `Clock.expire_at`."""
        return CoarseExpiry(self, when) if coarse else FineExpiry(when)

    def ticker(self, loop: asyncio.AbstractEventLoop) -> Ticker:
        """The shared tick of that loop."""
        ticker = self._tickers.get(loop)
        if ticker is None:
            ticker = self._tickers[loop] = Ticker(loop)
        self.latest = ticker
        return ticker


class Ticker:
    """Looks at all coarse expiries of one loop every `TICK`, while there are any."""

    __slots__ = ("is_armed", "loop", "open")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open: set[Expiry] = set()
        self.is_armed = False

    def arm(self) -> None:
        """Start ticking; to be called only when it does not tick yet."""
        self.is_armed = True
        self.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self.is_armed = False
        now = time.monotonic()
        for expiry in [expiry for expiry in self.open if expiry.when <= now]:
            self.open.discard(expiry)
            expiry.expire()
        if self.open:
            self.arm()


class Expiry:
    """Cancels the task that entered it, once; its own cancellation leaves as `TimeoutError`.

    | state    | enter | expire               | leave                                           |
    |----------|-------|----------------------|-------------------------------------------------|
    | new      | open  | -                    | -                                               |
    | open     | -     | expired, task cancel | left                                            |
    | expired  | -     | -                    | left; TimeoutError if only ours was in the air  |

    As `asyncio.timeout` does, it takes its own request back (`Task.uncancel`); when somebody else
    has asked for a cancellation too, that one passes.
    """

    __slots__ = ("_asked", "_expired", "_task", "when")

    _task: asyncio.Task[object]
    _asked: int

    def __init__(self, when: float) -> None:
        self.when = when
        self._expired = False

    def expire(self) -> None:
        """Cancel the block; called on the loop, while the task is suspended inside it."""
        self._expired = True
        self._task.cancel()

    def _end(self, error: BaseException | None) -> None:
        if self._task.uncancel() <= self._asked and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


class CoarseExpiry(Expiry):
    """Expires at the first shared tick after its time.

    Entered for every message, so it is written flat: nothing is called that can be in place.
    """

    __slots__ = ("_clock", "_open")

    _open: set[Expiry]

    def __init__(self, clock: AsyncioClock, when: float) -> None:
        self.when = when
        self._expired = False
        self._clock = clock

    def __enter__(self) -> None:
        loop = get_running_loop()
        self._task = task = current_task(loop) or _misused()
        self._asked = task.cancelling()
        ticker = self._clock.latest
        if ticker is None or ticker.loop is not loop:
            ticker = self._clock.ticker(loop)
        self._open = ticker.open
        ticker.open.add(self)
        if not ticker.is_armed:
            ticker.arm()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.discard(self)
        if self._expired:
            self._end(error)


class FineExpiry(Expiry):
    """Expires by a timer of its own."""

    __slots__ = ("_timer",)

    def __enter__(self) -> None:
        self._task = task = current_task() or _misused()
        self._asked = task.cancelling()
        self._arm()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._expired:
            self._end(error)

    def _arm(self) -> None:
        left = self.when - time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(left, self._ring) if left > 0 else loop.call_soon(self._ring)

    def _ring(self) -> None:
        if time.monotonic() < self.when:  # the loop's clock is coarser than ours
            self._arm()
        else:
            self.expire()


def _misused() -> NoReturn:
    raise Misuse("expire_at bounds a block inside a task, and this runs in none")
