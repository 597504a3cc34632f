"""Which acknowledgements to write: one `multiple` below the first gap, single ones beyond it.

A `multiple` acknowledgement reaches *everything* delivered on its channel up to its tag. Beyond a
delivery that still runs it would acknowledge that one too, and a crash would lose it (tried: tags
3 to 5 acknowledged so, and 1 and 2, still running, were gone).

| the tags that ended       | 1 2 3 were delivered, then                    | written        |
|---------------------------|-----------------------------------------------|----------------|
| 1, 2                      | no gap below them                             | 2 multiple     |
| 3                         | 1 and 2 still run                             | 3              |
| 1, 2 (3 had ended before) | the run reaches to 3                          | 2 multiple     |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Ack(NamedTuple):
    """One acknowledgement to write."""

    tag: int
    multiple: bool


class Acks:
    """The deliveries of one channel, by tag; tags are counted up from 1 by the broker."""

    def __init__(self) -> None:
        self._lowest = 1  # all below it have ended
        self._beyond: set[int] = set()  # ended, at or above the lowest

    def acked(self, tags: Iterable[int]) -> list[Ack]:
        """Take note that these were handled; what to write for it, in this order."""
        wanted = set(tags)
        self._beyond |= wanted
        highest = self._advance(wanted)
        written: list[Ack] = []
        if highest:
            below = [tag for tag in wanted if tag <= highest]
            written.append(Ack(highest, multiple=len(below) > 1))
        written += [Ack(tag, multiple=False) for tag in sorted(wanted) if tag > highest]
        return written

    def returned(self, tags: Iterable[int]) -> None:
        """Take note that these were given back one by one: they hold up nothing any more."""
        self._beyond.update(tags)
        self._advance(frozenset())

    def _advance(self, wanted: set[int] | frozenset[int]) -> int:
        """Move the lowest on; the highest wanted tag that it passed, or 0."""
        beyond = self._beyond
        lowest, highest = self._lowest, 0
        while lowest in beyond:
            beyond.discard(lowest)
            if lowest in wanted:
                highest = lowest
            lowest += 1
        self._lowest = lowest
        return highest
