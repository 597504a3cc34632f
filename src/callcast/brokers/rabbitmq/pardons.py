"""Returns that were no crash.

A queue counts every return of a message alike: a crash, a worker that stops, a look at what waits.
Who returns one without its fault writes that down first: "that the count of this message becomes
4 is no crash". What a message has crashed is its count without what is pardoned.

A pardon names the number and not the return, so it can be written before what may or may not
happen, and twice, and it forgives one return at most. Pure; the stream is read elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from callcast.core.message import Message

PARDONS_MAX = 100_000
"""Messages remembered; of one forgotten, returns count as crashes again, and it runs alone."""
RECORD_MAX = 500
"""Pardons in one record."""


class Return(NamedTuple):
    """A message that goes back to its queue without a fault; `times`: as it was delivered."""

    queue: str
    source: str
    id: str
    times: int


class Pardons:
    """What was pardoned in a vhost."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], set[int]] = {}  # oldest first

    def fold(self, record: Mapping[str, Any], offset: int) -> None:
        """Take note of a record; wherever it stands, it says the same."""
        del offset
        for queue, source, id_, count in record.get("pardon", ()):
            key = (queue, source, id_)
            self._known.setdefault(key, set()).add(count)
        while len(self._known) > PARDONS_MAX:
            del self._known[next(iter(self._known))]

    def crashes(self, back: Return) -> int:
        """How many of a message's returns were crashes."""
        pardoned = self._known.get((back.queue, back.source, back.id))
        if not pardoned:
            return back.times
        return back.times - sum(each <= back.times for each in pardoned)


def known_by(message: Message) -> str:
    """Its id; of one that others wrote without an id, what tells it from most others.

    Two that are alike share their pardons, which forgives one of them a crash too many.
    """
    return message.id or f"sha256:{hashlib.sha256(message.body).hexdigest()}"


def records(returns: Iterable[Return]) -> list[dict[str, Any]]:
    """What to write before these go back."""
    pardons = [[one.queue, one.source, one.id, one.times + 1] for one in returns]
    return [
        {"pardon": pardons[start : start + RECORD_MAX]}
        for start in range(0, len(pardons), RECORD_MAX)
    ]
