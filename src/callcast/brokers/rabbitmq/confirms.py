"""The window of publishes that wait for their confirm, on one channel.

| event                         | what becomes of the publish                                     |
|-------------------------------|-----------------------------------------------------------------|
| `ack`, single or multiple     | confirmed; or returned, when the broker had returned it before  |
| `nack`, single or multiple    | refused: it may lie in some of its queues                       |
| `returned`                    | waits on: its `ack` follows                                     |
| `lost`, with the channel      | unknown                                                         |

Each one ends once, whatever comes in which order.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Fate(enum.Enum):
    """How a publish ended."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Confirms(Generic[T]):
    """What was sent, by the number under which the broker confirms it."""

    def __init__(self) -> None:
        self._next = 1
        self._open: dict[int, T] = {}  # oldest first
        self._returned: set[int] = set()

    def __len__(self) -> int:
        return len(self._open)

    def sent(self, item: T) -> int:
        """Take note of a publish; its number."""
        number = self._next
        self._next = number + 1
        self._open[number] = item
        return number

    def find(self, is_it: Callable[[T], bool]) -> int:
        """The number of the oldest such item that was not returned; else 0."""
        for number, each in self._open.items():
            if number not in self._returned and is_it(each):
                return number
        return 0

    def returned(self, number: int) -> None:
        """Take note that nobody wanted it."""
        if number in self._open:
            self._returned.add(number)

    def ack(self, number: int, *, multiple: bool) -> list[tuple[T, Fate]]:
        """What has ended well with this confirm."""
        return [
            (item, Fate.RETURNED if is_returned else Fate.CONFIRMED)
            for item, is_returned in self._end(number, multiple=multiple)
        ]

    def nack(self, number: int, *, multiple: bool) -> list[tuple[T, Fate]]:
        """What the broker could not do."""
        return [(item, Fate.REFUSED) for item, _ in self._end(number, multiple=multiple)]

    def lost(self) -> list[tuple[T, Fate]]:
        """All that still waited when the channel was lost."""
        gone = [(item, Fate.UNKNOWN) for item in self._open.values()]
        self._open.clear()
        self._returned.clear()
        return gone

    def _end(self, number: int, *, multiple: bool) -> Iterator[tuple[T, bool]]:
        ended = deque[int]()
        if multiple:
            for each in self._open:
                if each > number:
                    break
                ended.append(each)
        elif number in self._open:
            ended.append(number)
        for each in ended:
            item = self._open.pop(each)
            is_returned = each in self._returned
            self._returned.discard(each)
            yield item, is_returned
