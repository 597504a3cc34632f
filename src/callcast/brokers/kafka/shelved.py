"""What waits in the windows of a member: which of it leaves next, and how much there is.

Pure, and asked by the member under its lock; `Desk` says who holds what has left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from callcast.brokers.kafka.window import Item, Window


class Counts(Struct):
    """How much of what was read is not settled."""

    ready: int = 0
    leased: int = 0
    delayed: int = 0
    oldest: float = math.inf
    """The wall-clock time of the oldest one."""


def pick(windows: Sequence[Window], hand: object, limit: int, *, now: float) -> list[Item]:
    """Up to `limit` for this consumer, from the window whose first has waited longest on."""
    items: list[Item] = []
    for window in sorted(windows, key=_oldest) if len(windows) > 1 else windows:
        _take_from(window, hand, items, limit=limit, now=now)
    return items


def suspect(windows: Iterable[Window], hand: object, now: float) -> list[Item]:
    """One that may have killed its worker, if there is any: it runs alone."""
    for window in windows:
        entry = window.shelf.next(window.owner(hand), now)
        if isinstance(entry, Item):
            return [entry]
    return []


def counted(windows: Iterable[Window], now: float) -> Counts:
    """How much of what was read is not settled."""
    counts = Counts()
    for window in windows:
        delayed = len(_delayed(window, now))
        counts.leased += window.out
        counts.delayed += delayed
        counts.ready += len(window.open) - window.out - delayed
        first = next(iter(window.open.values()), None)
        if first is not None:
            counts.oldest = min(counts.oldest, first.since)
    return counts


def is_delayed(item: Item, now: float) -> bool:
    """Whether one that waits does so for a time, or behind something that does."""
    return item.seq in _delayed(item.window, now)


def _delayed(window: Window, now: float) -> set[int]:
    window.admit(now)
    found = {entry.seq for entry in window.shelf.delayed(now)}
    return found | {item.seq for item in window.waiting if item.due > now}


def _take_from(window: Window, hand: object, items: list[Item], *, limit: int, now: float) -> None:
    owner = window.owner(hand)
    pile, lanes = window.pile, window.lanes
    while len(items) < limit:
        if pile is not None and not pile.has_unsuspected:
            return
        entry = (pile or lanes or window.shelf).next(owner, now)
        if entry is None:
            return
        assert isinstance(entry, Item)  # noqa: S101 - nothing else is put on the shelf
        items.append(entry)


def _oldest(window: Window) -> float:
    """When the first that waits there was published."""
    return next((item.since for item in window.open.values() if not item.token), math.inf)
