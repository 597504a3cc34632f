"""What the memory broker keeps of each topic to be read again.

Pure: told the time, in seconds of the wall clock. Kept is what was published to a whole topic, for
so many seconds after it came; a position is a number that grows from one message to the next.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.ports.broker import Glimpse


class Window(NamedTuple):
    """A time and two positions, as `Rewinds.read` has them."""

    since: float
    until: float | None
    after: str
    last: str


class Log:
    """The messages of one topic, oldest first."""

    def __init__(self, retain: float) -> None:
        self._retain = retain
        self._numbers = itertools.count(1)
        self._kept: deque[tuple[int, float, Message]] = deque()

    def add(self, message: Message, wall: float) -> None:
        """Keep a message that came at this time; forget those whose time is over."""
        self._kept.append((next(self._numbers), wall, message))
        while self._kept[0][1] < wall - self._retain:
            self._kept.popleft()

    def read(self, window: Window, limit: int) -> Sequence[Glimpse]:
        """The next `limit` messages of a window; raises `Misuse` for a position that is none."""
        first = _number(window.after or "0")
        last = _number(window.last) if window.last else None
        found = (
            Glimpse(message, position=str(number), at=at)
            for number, at, message in self._kept
            if number > first
            and (last is None or number <= last)
            and at >= window.since
            and (window.until is None or at < window.until)
        )
        return list(itertools.islice(found, limit))


def _number(position: str) -> int:
    if not (position.isascii() and position.isdigit()):
        raise Misuse(f"{position!r} is no position of this broker's log: it is a number, as 1200")
    return int(position)
