"""Which groups there are, as the catalog's stream tells it: AMQP cannot list queues or bindings.

| record                  | the group is not there | the group is there                          |
|-------------------------|------------------------|---------------------------------------------|
| ``made``                | it is, and so          | stays as it is: the first one counts        |
| ``retired``             | -                      | it is gone                                  |

Old records are cut off the stream, so every few hundred somebody adds a ``whole`` one: all groups
as they were after the record ``upto``. Who has read from before that knows more, and passes it by.

Pure: told the records in the order of the stream, which is the same for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from callcast.core.amqp import Bound
from callcast.ports.broker import Source


class Terms(Struct, frozen=True):
    """A group, as a record has it; what a later version says beyond that is passed by."""

    topic: str
    group: str
    ordered: bool = False
    lanes: int = 16
    bound: Bound | None = None


class Retired(Struct, frozen=True):
    """A group that is gone."""

    topic: str
    group: str


class Record(Struct, frozen=True):
    """One record of the stream."""

    made: Terms | None = None
    retired: Retired | None = None
    whole: list[Terms] | None = None
    upto: int = -1


class Catalog:
    """The groups of a vhost."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Source] = {}
        self._seen: list[tuple[int, Record]] | None = []  # until it is known whole

    def fold(self, record: Mapping[str, Any], offset: int) -> None:
        """Take note of a record; one that says nothing to this version is left."""
        try:
            said = msgspec.convert(record, Record)
        except msgspec.ValidationError:
            return  # somebody else's, or of a later version
        if self._seen is not None:
            if offset == 0:
                self._seen = None  # read from the very beginning
            elif said.whole is not None:
                self._begin_with(said.whole, said.upto)
                return
            else:
                self._seen.append((offset, said))
        self._apply(said)

    def whole(self, upto: int) -> dict[str, Any]:
        """A record of all groups, for those who cannot read from the beginning."""
        return {"whole": [_terms(source) for source in self._groups.values()], "upto": upto}

    def _begin_with(self, whole: Sequence[Terms], upto: int) -> None:
        seen, self._seen = self._seen or [], None
        self._groups.clear()
        for terms in whole:
            self._apply(Record(made=terms))
        for offset, each in seen:
            if offset > upto:
                self._apply(each)

    def _apply(self, record: Record) -> None:
        made, retired = record.made, record.retired
        if made is not None:
            source = Source(made.topic, made.group, made.ordered, made.lanes, bound=made.bound)
            self._groups.setdefault((source.topic, source.group), source)
        elif retired is not None:
            self._groups.pop((retired.topic, retired.group), None)

    def find(self, topic: str, group: str) -> Source | None:
        """The group as it is, or None."""
        return self._groups.get((topic, group))

    def has(self, topic: str) -> bool:
        """Whether any group listens to a topic."""
        return any(each == topic for each, _ in self._groups)

    @property
    def sources(self) -> Sequence[Source]:
        """All groups."""
        return list(self._groups.values())

    def otherwise(self, source: Source) -> list[str]:
        """In what a group that is there differs from what is wanted, a sentence each."""
        there = self.find(source.topic, source.group)
        if there is None:
            return self._shared(source)
        facts: list[tuple[str, object, object]] = [
            ("ordered", there.ordered, source.ordered),
            ("queue", _queue(there), _queue(source)),
        ]
        if there.ordered and source.ordered:
            facts.append(("lanes", there.lanes, source.lanes))
        return [
            f"group {source} exists with {name}={is_so!r}, wanted is {name}={wanted!r}: drain and"
            " retire it, or mend the contract"
            for name, is_so, wanted in facts
            if is_so != wanted
        ]

    def _shared(self, source: Source) -> list[str]:
        """A queue of others has one group: two would take each other's messages."""
        return [
            f"group {source}: queue {each.bound.queue!r} is consumed by group {each} already; bind"
            " a queue of its own to their exchange"
            for each in self._groups.values()
            if each.bound is not None and _queue(each) == _queue(source)
        ]


def made(source: Source) -> dict[str, Any]:
    """The record of a group that was made."""
    return {"made": _terms(source)}


def retired(source: Source) -> dict[str, Any]:
    """The record of a group that is gone."""
    return {"retired": {"topic": source.topic, "group": source.group}}


def _terms(source: Source) -> dict[str, Any]:
    terms = {
        "topic": source.topic,
        "group": source.group,
        "ordered": source.ordered,
        "lanes": source.lanes,
    }
    return terms if source.bound is None else {**terms, "bound": asdict(source.bound)}


def _queue(source: Source) -> str | None:
    return None if source.bound is None else source.bound.queue
