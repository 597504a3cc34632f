"""How far a measured share can be trusted (F12)."""

from __future__ import annotations

from math import sqrt

from msgspec import Struct

Z = 1.96
"""Of a normal distribution: 95 % are no further away."""


class Interval(Struct, frozen=True):
    """Where the true share lies, in 95 of 100 cases; of nothing seen, anywhere."""

    low: float = 0.0
    high: float = 1.0
    n: int = 0

    def clears(self, threshold: float) -> bool:
        """Whether the threshold is outside: only then may advice depend on it."""
        return self.low >= threshold or self.high < threshold


def wilson(good: int, n: int, z: float = Z) -> Interval:
    """F12: the score interval of `good` successes in `n`.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    if n == 0:
        return Interval()
    share = good / n
    scale = 1.0 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * sqrt(share * (1.0 - share) / n + z * z / (4 * n * n)) / scale
    # At the ends the arithmetic may miss 0 and 1 by its last digit.
    low = 0.0 if good == 0 else max(0.0, middle - half)
    high = 1.0 if good == n else min(1.0, middle + half)
    return Interval(low, high, n)
