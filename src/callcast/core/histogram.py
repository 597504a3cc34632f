"""A histogram of durations: bounded memory, any quantile within 2 %, and two of them add up.

Log-linear buckets as in HdrHistogram (https://hdrhistogram.org): each power of two is cut into 32
equal parts, and a quantile is the middle of its part, at most 1/64 away from the truth.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Collection, Mapping
from math import frexp, inf, ldexp

PARTS = 32
"""Buckets for each power of two; the widest is 1/32 of its value."""
LEAST = 2.0**-20
"""Seconds, about a microsecond: what is shorter counts as this."""
MOST = 2.0**20
"""Seconds, about twelve days: what is longer counts as this."""

_UPPER = 1 if sys.byteorder == "little" else 0
_NEGATIVE = 0x8000
_SPARE = 7 - 5
"""Bits of the mantissa that an upper half has beyond the five for 32 parts."""
_OFFSET = 126 * PARTS
"""`frexp` counts powers from here: its fractions begin at a half, those of the bits at one."""
_FIRST = (frexp(LEAST)[1]) * PARTS
_LAST = (frexp(MOST)[1]) * PARTS


class Histogram:
    """Durations in seconds; at most 1,281 buckets, of which only those in use are kept."""

    __slots__ = ("_buckets", "count", "most", "total")

    def __init__(self, buckets: Mapping[int, int] | None = None, *, total: float = 0.0) -> None:
        """Empty, or what `buckets` and `total` of another one say; `most` is then its estimate."""
        self._buckets: dict[int, int] = {} if buckets is None else dict(buckets)
        self.count: int = sum(self._buckets.values())
        self.total: float = total
        self.most: float = _middle(max(self._buckets)) if self._buckets else 0.0

    @property
    def buckets(self) -> Mapping[int, int]:
        """Bucket to count, to be kept and to be handed to another one."""
        return self._buckets

    @property
    def mean(self) -> float:
        """Seconds; 0 when there is nothing."""
        return self.total / self.count if self.count else 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Add a duration, or several equal ones."""
        fraction, power = frexp(min(max(seconds, LEAST), MOST))
        index = power * PARTS + int((fraction - 0.5) * 2 * PARTS)
        self._buckets[index] = self._buckets.get(index, 0) + count
        self.count += count
        self.total += seconds * count
        self.most = max(self.most, seconds)

    def record_all(self, seconds: Collection[float]) -> None:
        """Add many durations at once, in a tenth of the time that `record` takes for each.

        The bucket of a single-precision number can be read off its upper half: sign, exponent,
        and the first seven bits of its mantissa, of which five tell the 32 parts apart. The
        rounding to single precision may move what lies at an edge to the next part.
        """
        if not seconds:
            return
        halves = memoryview(array("f", seconds)).cast("B").cast("H")
        for half, count in Counter(halves[_UPPER::2].tolist()).items():
            at = _FIRST if half >= _NEGATIVE else (half >> _SPARE) - _OFFSET
            at = min(max(at, _FIRST), _LAST)
            self._buckets[at] = self._buckets.get(at, 0) + count
        self.count += len(seconds)
        self.total += sum(seconds)
        longest = max(seconds)
        self.most = max(self.most, longest)

    def add(self, other: Histogram) -> None:
        """Add all that the other one has."""
        for index, count in other.buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count
        self.count += other.count
        self.total += other.total
        self.most = max(self.most, other.most)

    def quantile(self, share: float) -> float:
        """The duration in seconds that this share (0 to 1) does not exceed; 0 of nothing."""
        if not self.count:
            return 0.0
        wanted = max(1.0, share * self.count)
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= wanted:
                return min(_middle(index), self.most)
        return self.most

    def share_above(self, seconds: float) -> float:
        """Which share is longer than this, to within the bucket it falls into."""
        if not self.count or seconds == inf:
            return 0.0
        longer = sum(count for index, count in self._buckets.items() if _middle(index) > seconds)
        return longer / self.count


def _middle(index: int) -> float:
    power, part = divmod(index, PARTS)
    return ldexp(0.5 + (part + 0.5) / (2 * PARTS), power)
