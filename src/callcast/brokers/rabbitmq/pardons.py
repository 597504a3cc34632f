"""Returns that were no crash.

A queue counts every return of a message alike: a crash, a worker that stops, a look at what waits.
Who returns one without its fault writes that down first: "that the count of this message becomes
4 is no crash". What a message has crashed is its count without what is pardoned.

A pardon names the number and not the return, so it can be written before what may or may not
happen, and twice, and it forgives one return at most. It can be taken back: in an ordered group a
suspect runs alone, but the process that it kills has others of its lanes in hand. Before it runs,
all of them are pardoned and it is not. Pure; the stream is read elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from callcast.core.message import Message

PARDONS_MAX = 100_000
"""Messages remembered; of one forgotten, returns count as crashes again, and it runs alone."""
RECORD_MAX = 500
"""Pardons in one record."""


class Record(Struct, frozen=True):
    """What is written: queue, source, id and count of each return."""

    pardon: list[tuple[str, str, str, int]] = []
    blame: list[tuple[str, str, str, int]] = []


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
        """Take note of a record; of those about one message the last one counts."""
        del offset
        try:
            said = msgspec.convert(record, Record)
        except msgspec.ValidationError:
            return  # somebody else's, or of a later version
        for queue, source, id_, count in said.pardon:
            key = (queue, source, id_)
            self._known.setdefault(key, set()).add(count)
        for queue, source, id_, count in said.blame:
            self._known.get((queue, source, id_), set()).discard(count)
        while len(self._known) > PARDONS_MAX:
            del self._known[next(iter(self._known))]

    def crashes(self, back: Return) -> int:
        """How many of a message's returns were crashes."""
        pardoned = self._known.get((back.queue, back.source, back.id))
        if not pardoned:
            return back.times
        return back.times - sum(each <= back.times for each in pardoned)

    def is_forgiven(self, back: Return) -> bool:
        """Whether it is pardoned already, should it go back now."""
        return back.times + 1 in self._known.get((back.queue, back.source, back.id), ())

    def apart(self, suspect: Return, others: Iterable[Return]) -> list[dict[str, Any]]:
        """What to write before that one runs: if its process dies, it alone is to blame."""
        found = records(one for one in others if not self.is_forgiven(one))
        if self.is_forgiven(suspect):
            found.append({"blame": [_next(suspect)]})
        return found


def back(queue: str, message: Message, times: int) -> Return:
    """A message on its way back to that queue, which has had it back so often already.

    One that others wrote without an id is known by what tells it from most others. Two that are
    alike share their pardons, which forgives one of them a crash too many.
    """
    name = message.id or f"sha256:{hashlib.sha256(message.body).hexdigest()}"
    return Return(queue, message.source, name, times)


def records(returns: Iterable[Return]) -> list[dict[str, Any]]:
    """What to write before these go back."""
    pardons = [_next(one) for one in returns]
    return [
        {"pardon": pardons[start : start + RECORD_MAX]}
        for start in range(0, len(pardons), RECORD_MAX)
    ]


def _next(back: Return) -> list[str | int]:
    return [back.queue, back.source, back.id, back.times + 1]
