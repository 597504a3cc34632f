"""How long to wait before a broker is asked again that has just failed."""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.1
MOST = 5.0
"""Seconds: short enough to be back soon after a restart of the broker."""


class Backoff:
    """Doubles from `FIRST` to `MOST`; each wait is between half of that and all of it."""

    def __init__(self, dice: Callable[[], float]) -> None:
        self._dice = dice
        self.failures: int = 0

    def next(self) -> float:
        """Seconds to wait after one more failure in a row."""
        longest = min(MOST, FIRST * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return longest * (0.5 + 0.5 * self._dice())

    def reset(self) -> None:
        """It worked."""
        self.failures = 0
