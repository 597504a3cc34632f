"""Who waits for what: bells that any thread may ring."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterable

from callcast.brokers.sqlite.records import Hand
from callcast.ports.clock import Clock


class Bell:
    """One consumer's: rung when there may be something new for it.

    It wakes the consumer's event loop, which then asks the writer. Letting the ring ask at once
    would save a hop, and lease messages to a worker whose loop is blocked.
    """

    def __init__(self, hand: Hand, clock: Clock) -> None:
        self.hand = hand
        self._clock = clock
        self.due: float = -math.inf
        """When to look again without having been rung, on the clock's `now()`."""
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()  # changed in the loop's thread
        self._is_rung = True

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def ring(self) -> None:
        """Wake whoever waits, or who will. Thread-safe."""
        self._is_rung = True
        # Set before it is asked: `wait` does both in the other order, so one of them sees it.
        if self._waiting:
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                self._waiting.clear()  # the loop is closed: nobody is left

    def left(self) -> float:
        """Seconds until it looks again by itself."""
        return self.due - self._clock.now()

    def answered(self) -> bool:
        """Whether it is time to look; what rings from now on is heard by the next call."""
        if self._is_rung or self._clock.now() >= self.due:
            self._is_rung = False
            return True
        return False

    async def wait(self, until: float) -> None:
        """Return when it rings, when it is due, or at `until` on the clock."""
        woken: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(woken)
        try:
            if not self._is_rung:
                with self._clock.expire_at(min(until, self.due), coarse=False):
                    await woken
        except TimeoutError:
            return
        finally:
            self._waiting.discard(woken)

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


class Bells:
    """The bells of all consumers of one broker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Bell, ...] = ()  # replaced as a whole, so that reading needs no lock

    def add(self, bell: Bell) -> None:
        """Let a bell be rung from now on."""
        with self._lock:
            self._all = (*self._all, bell)

    def discard(self, bell: Bell) -> None:
        """Ring it no more."""
        with self._lock:
            self._all = tuple(other for other in self._all if other is not bell)

    def ring(self, topics: Iterable[int]) -> None:
        """Ring all bells of these topics."""
        rung = set(topics)
        for bell in self._all:
            if bell.hand.group.topic in rung:
                bell.ring()

    def ring_all(self) -> None:
        """Ring all bells."""
        for bell in self._all:
            bell.ring()

    def awaited(self) -> list[Bell]:
        """The bells that somebody waits for."""
        return [bell for bell in self._all if bell.is_awaited]
