"""Sliding windows over outcomes: the last so many calls, or the last so many seconds."""

from __future__ import annotations

from typing import Protocol

_FAILED = 1
_SLOW = 2
_EMPTY = 4


class Window(Protocol):
    """Counts what lies inside it. Not locked: its owner is."""

    calls: int
    failures: int
    slows: int
    is_clean: bool
    """One more quick success would change nothing."""

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one outcome at `now`, and let go of what is too old."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class CountWindow:
    """The last `size` outcomes, in a ring of one byte each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ring = bytearray([_EMPTY]) * size
        self._place = 0
        self.calls: int = 0
        self.failures: int = 0
        self.slows: int = 0
        self.is_clean: bool = False

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one outcome, in the place of the oldest when full."""
        del now
        code = failed | slow << 1
        ring, place = self._ring, self._place
        before = ring[place]
        self._place = place + 1 if place + 1 < self._size else 0
        ring[place] = code
        if before == _EMPTY:
            self.calls += 1
        else:
            self.failures -= before & _FAILED
            self.slows -= before >> 1
        self.failures += failed
        self.slows += slow
        self.is_clean = self.calls == self._size and not self.failures and not self.slows

    def clear(self) -> None:
        """Forget everything."""
        self._ring = bytearray([_EMPTY]) * self._size
        self._place = 0
        self.calls = 0
        self.failures = 0
        self.slows = 0
        self.is_clean = False


class TimeWindow:
    """The last `seconds`, in buckets of one second; a bucket leaves as a whole."""

    def __init__(self, seconds: int) -> None:
        self._size = seconds
        self._buckets = [[0, 0, 0] for _ in range(seconds)]
        self._bucket = self._buckets[0]  # the one of the newest second
        self._newest: int | None = None
        self.calls: int = 0
        self.failures: int = 0
        self.slows: int = 0
        self.is_clean = False  # never: counts fall as time passes

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one outcome; a `now` of the past (another thread's) counts as the newest."""
        second = int(now)
        if second != self._newest:
            self._evict(second)
        bucket = self._bucket
        bucket[0] += 1
        bucket[1] += failed
        bucket[2] += slow
        self.calls += 1
        self.failures += failed
        self.slows += slow

    def clear(self) -> None:
        """Forget everything."""
        self._buckets = [[0, 0, 0] for _ in range(self._size)]
        self._newest = None
        self.calls = 0
        self.failures = 0
        self.slows = 0

    def _evict(self, second: int) -> None:
        """Empty the buckets that `second` leaves behind."""
        newest = second if self._newest is None else self._newest
        for passed in range(newest + 1, min(second, newest + self._size) + 1):
            bucket = self._buckets[passed % self._size]
            self.calls -= bucket[0]
            self.failures -= bucket[1]
            self.slows -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._newest = max(newest, second)
        self._bucket = self._buckets[self._newest % self._size]
