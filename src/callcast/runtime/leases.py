"""Leases: renewed from a thread of their own, which a blocked event loop cannot stop."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

from callcast.ports.broker import Consumer, Delivery
from callcast.ports.clock import Clock
from callcast.runtime.clock import AsyncioClock

PAUSE_MIN = 0.01
"""Seconds between two rounds at least, however short a lease is."""


class Hold:
    """What one consumer has leased, and until when each is renewed.

    The loop's thread adds and removes; the renewing thread only looks. Both do so in single
    operations of one dict, which are atomic.
    """

    def __init__(self, consumer: Consumer, lease: float, now: float) -> None:
        self._consumer = consumer
        self._interval = lease / 3.0
        self._renewed = now
        self.until: dict[Delivery, float] = {}
        """Monotonic: past it a delivery is not renewed, so that somebody else gets it."""
        self.failed: Callable[[Exception], None] = _ignored

    @property
    def due(self) -> float:
        """When it is to be renewed next."""
        return self._renewed + self._interval

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Renew these for as long as they wait; a start (`until[delivery] = ...`) sets an end."""
        self.until.update(dict.fromkeys(deliveries, math.inf))

    def renew(self, now: float) -> None:
        """Renew what is to be renewed, when a third of the lease has passed. From any thread."""
        if now < self.due:
            return
        self._renewed = now
        kept = [delivery for delivery, until in list(self.until.items()) if now < until]
        if not kept:
            return
        try:
            self._consumer.renew(kept)
        except Exception as error:  # noqa: BLE001 - two more rounds come before the lease ends
            self.failed(error)


def _ignored(error: Exception) -> None:
    """Until the worker says what it does about it: a lost lease is told at the settle."""
    del error


class Leases:
    """One thread that renews the holds of all workers of a bus; it runs while there are any.

    A thread can only wait for the machine's clock. On a clock that is moved by hand there is none,
    and whoever moves with that clock renews.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.has_thread: bool = isinstance(clock, AsyncioClock)
        self._changed = threading.Condition()
        self._holds: list[Hold] = []  # under the condition
        self._thread: threading.Thread | None = None

    def join(self, hold: Hold) -> None:
        """Renew this hold from now on."""
        with self._changed:
            self._holds = [*self._holds, hold]
            if self.has_thread and self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="callcast-leases", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def leave(self, hold: Hold) -> None:
        """Renew it no longer. Idempotent; returns at once, a round under way may still name it."""
        with self._changed:
            self._holds = [each for each in self._holds if each is not hold]
            self._changed.notify()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._holds:
                    self._thread = None
                    return
                self._changed.wait(self._pause())
                holds = self._holds
            now = self._clock.now()
            for hold in holds:  # not under the lock: a broker's renew may take its time
                hold.renew(now)

    def _pause(self) -> float:
        due = min(hold.due for hold in self._holds)
        return max(PAUSE_MIN, due - self._clock.now())
