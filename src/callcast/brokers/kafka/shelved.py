"""What waits in the windows of a member: which of it leaves next, and how much there is.

Pure, and asked by the member under its lock; `Desk` says who holds what has left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

from msgspec import Struct

from callcast.brokers.kafka.hands import Hand
from callcast.brokers.kafka.window import Item, Window
from callcast.policies.shelves import SUSPECT_CRASHES, Pile


class Counts(Struct):
    """How much of what was read is not settled."""

    ready: int = 0
    leased: int = 0
    delayed: int = 0
    oldest: float = math.inf
    """The wall-clock time of the oldest one."""


def pick(windows: Sequence[Window], hand: Hand, limit: int, *, now: float) -> list[Item]:
    """Up to `limit` for this consumer, from the window whose first has waited longest on.

    Of an ordered source this includes suspects, each in its place: one goes alone, when the
    consumer has nothing else, and nothing goes before that.
    """
    items: list[Item] = []
    for window in sorted(windows, key=_oldest) if len(windows) > 1 else windows:
        if _take_from(window, hand, items, limit=limit, now=now):
            break
    return items


def suspect(windows: Iterable[Window], hand: Hand, now: float) -> list[Item]:
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


def _take_from(window: Window, hand: Hand, items: list[Item], *, limit: int, now: float) -> bool:
    """Take what this window has; whether a suspect ends it."""
    shelf = window.shelf
    if isinstance(shelf, Pile):
        # Nothing but items is put on the shelf of a window.
        items += cast("list[Item]", shelf.several(limit - len(items)))
        return False
    owner = window.owner(hand)
    while len(items) < limit:
        entry = shelf.next(owner, now)
        if entry is None:
            return False
        assert isinstance(entry, Item)  # noqa: S101 - as above
        if entry.crashes >= SUSPECT_CRASHES:
            if items or hand.leases:
                shelf.put_back(entry, now)
                shelf.ended(entry, now)
            else:
                items.append(entry)
            return True
        items.append(entry)
    return False


def _oldest(window: Window) -> float:
    """When the first that waits there was published."""
    return next((item.since for item in window.open.values() if not item.token), math.inf)
