"""Waking an event loop from any thread."""

from __future__ import annotations

import asyncio
import threading


class Bell:
    """One waiter's: rung when there may be something new for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None  # of the loop's thread
        self._is_rung = False

    def ring(self) -> None:
        """Wake whoever waits, or who will. Thread-safe."""
        self._is_rung = True
        # Set before it is asked: `wait` does both in the other order, so one of them sees it.
        if self._waiting is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                self._waiting = None  # the loop is closed: nobody is left

    def mute(self) -> None:
        """Forget what was rung: what rings from now on is heard by the next `wait`."""
        self._is_rung = False

    async def wait(self, seconds: float) -> None:
        """Return when it rings, or after so many seconds."""
        self._waiting = woken = self._loop.create_future()
        timer = self._loop.call_later(min(seconds, 86_400.0), self._wake)
        try:
            if not self._is_rung:
                await woken
        finally:
            timer.cancel()
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Bells:
    """All bells that something rings for."""

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

    def ring(self) -> None:
        """Ring all of them."""
        for bell in self._all:
            bell.ring()
