"""`Clock` on asyncio: the one place that knows what time it is."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task, get_running_loop
from contextlib import AbstractContextManager
from math import inf
from types import TracebackType
from typing import NoReturn

from callcast.core.errors import Misuse

TICK = 0.25
"""Seconds between two looks at all coarse expiries of a loop: handlers are bounded in minutes."""


class AsyncioClock:
    """The machine's clocks and the running loop's timers; implements `ports.clock.Clock`.

    One clock serves any number of loops; what it arms on a loop stays on that loop.
    """

    def __init__(self) -> None:
        self._tickers: dict[asyncio.AbstractEventLoop, Ticker] = {}  # replaced by ticker()
        # The ticker asked for last: nearly always there is one loop, and a weak look-up costs more
        # than all the rest of a coarse expiry. One assignment, so threads see the old or the new.
        self.latest: Ticker | None = None

    # The functions themselves: a method around them would double what asking the time costs, and
    # every call and message asks several times. Monotonic time is the same for all loops and
    # threads of the process; the wall clock steps when the machine's clock is set.
    now: staticmethod[[], float] = staticmethod(time.monotonic)
    wall: staticmethod[[], float] = staticmethod(time.time)

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds, never earlier; 0 or less lets others run once."""
        until = time.monotonic() + delay
        await asyncio.sleep(delay)
        # A loop may wake a timer up to its clock's resolution early (uvloop: a millisecond).
        if (left := until - time.monotonic()) > 0:
            await self.sleep(left)

    def expire_at(self, when: float, *, coarse: bool = True) -> AbstractContextManager[object]:
        """Bound a block; see `Clock.expire_at`."""
        return CoarseExpiry(self, when) if coarse else FineExpiry(self, when)

    def ticker(self, loop: asyncio.AbstractEventLoop) -> Ticker:
        """The shared tick and alarm of that loop; those of closed loops are let go."""
        ticker = self._tickers.get(loop)
        if ticker is None:
            ticker = Ticker(loop)
            there = list(self._tickers.items())
            self._tickers = {loop: ticker, **{at: it for at, it in there if not at.is_closed()}}
        self.latest = ticker
        return ticker


class Ticker:
    """Looks after all expiries of one loop.

    The coarse ones are looked at every `TICK`, while there are any. The fine ones share one alarm,
    set to the earliest of them: a block that ends in time, as nearly all do, leaves it set, so that
    the next blocks, whose times are later, need no timer of their own. When it rings for nobody it
    is set to the earliest that is open then.
    """

    __slots__ = ("_alarm", "fine", "is_armed", "loop", "open", "rings_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.open: set[Expiry] = set()
        self.is_armed: bool = False
        self.fine: set[Expiry] = set()
        self.rings_at: float = inf
        self._alarm: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Start ticking; to be called only when it does not tick yet."""
        self.is_armed = True
        self.loop.call_later(TICK, self._tick)

    def ring_at(self, when: float) -> None:
        """Set the alarm to a time that is earlier than the one it is set to."""
        if self._alarm is not None:
            self._alarm.cancel()
        self.rings_at = when
        self._alarm = self.loop.call_later(max(0.0, when - time.monotonic()), self.ring)

    def ring(self) -> None:
        """Expire what is due; a loop that wakes early is waited for again."""
        self._alarm = None
        self.rings_at = inf
        _expire_due(self.fine)
        if self.fine:
            self.ring_at(min(expiry.when for expiry in self.fine))

    def _tick(self) -> None:
        self.is_armed = False
        _expire_due(self.open)
        if self.open:
            self.arm()


def _expire_due(open_: set[Expiry]) -> None:
    now = time.monotonic()
    for expiry in [expiry for expiry in open_ if expiry.when <= now]:
        open_.discard(expiry)
        expiry.expire()


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
        self.when: float = when
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


class FineExpiry(CoarseExpiry):
    """Expires at its time, by the loop's shared alarm."""

    __slots__ = ()

    def __enter__(self) -> None:
        loop = get_running_loop()
        self._task = task = current_task(loop) or _misused()
        self._asked = task.cancelling()
        ticker = self._clock.latest
        if ticker is None or ticker.loop is not loop:
            ticker = self._clock.ticker(loop)
        self._open = ticker.fine
        ticker.fine.add(self)
        if self.when < ticker.rings_at:
            ticker.ring_at(self.when)


def _misused() -> NoReturn:
    raise Misuse("expire_at bounds a block inside a task, and this runs in none")
