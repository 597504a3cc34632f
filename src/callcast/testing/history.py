"""The history checker: what producers and consumers wrote down, judged by what was promised.

Every process of a test appends entries to a file of its own (`line`), and dies whenever a fault
wants it to. Afterwards `entries` reads all files and `check` judges the whole. It is pure: it is
handed entries and answers a `Report`.

=========== ======================= =====================================================
operation   type                    says
=========== ======================= =====================================================
publish     invoke                  attempted; whoever dies behind it leaves it *unknown*
publish     ok                      acknowledged: it must not be lost
publish     fail                    refused (`NotSent`): it must never arrive
publish     info                    unknown (`Unanswered`): it may arrive
wire        ok                      a tap saw it between producer and broker
effect      ok                      a handler of the group did its work
settle      ok                      `settle` returned for a `Done`: it must not come again
dead        ok                      it is in the dead letters of the group
expire      ok                      it was given up on purpose, past its time
redrive     ok                      it was put back for the group: it may come again
=========== ======================= =====================================================

The ledger of effects is a list, not a set: a unique constraint would hide what is looked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

Op: TypeAlias = Literal["publish", "wire", "effect", "settle", "dead", "expire", "redrive"]
How: TypeAlias = Literal["invoke", "ok", "fail", "info"]
Where: TypeAlias = Literal["all", "prefix", "middle", "postfix"]

SHOWN = 5
"""Ids named in a sentence; the report has them all."""


class Entry(Struct, frozen=True, omit_defaults=True):
    """One thing that one process saw or did."""

    proc: str
    """The process, or the task in it, that publishes or handles."""
    op: Op
    id: str
    type: How = "ok"
    mono: float = 0.0
    """Seconds on a clock that all processes of the run share (`time.monotonic` on one machine)."""
    group: str = ""
    """Of effect, settle, dead, expire and redrive."""
    key: str | None = None
    key_seq: int = 0
    """The place among the messages of its key; counts attempts, so refused ones leave gaps."""
    hash: str = ""
    """Of the body; empty is unknown."""


def line(entry: Entry) -> bytes:
    """What to append to a file, in one write, so that a kill leaves whole lines or one cut one."""
    return msgspec.json.encode(entry) + b"\n"


def entries(text: bytes) -> list[Entry]:
    """What a file says; a last line that a kill cut short never happened."""
    whole = text[: text.rfind(b"\n") + 1]
    return [msgspec.json.decode(each, type=Entry) for each in whole.splitlines()]


@dataclass(frozen=True)
class Rules:
    """What was promised beyond "no acknowledged message is lost"."""

    once: bool = False
    """Every effect at most once (a `Transaction`); otherwise repeats before the settle are fine."""
    ordered: bool = False
    """The messages of a key take effect in their order."""
    gaps: bool = True
    """A key may go on behind a dead or expired message (``on_dead="skip"``)."""
    settles_durably: bool = True
    """Nothing comes again after its settle (`Traits.durable_settle`)."""


@dataclass(frozen=True)
class Lost:
    """Acknowledged to one producer, and never seen again by one group."""

    group: str
    producer: str
    ids: tuple[str, ...]
    where: Where
    """Before, between or behind what arrived: a late start, a hole, or a tail cut off."""

    def __str__(self) -> str:
        return f"{self.group} lost {some(self.ids)} of {self.producer} ({self.where})"


@dataclass(frozen=True)
class Report:
    """What the history says. Ids by group, where a group is concerned."""

    acknowledged: frozenset[str]
    unknown: frozenset[str]
    """Attempted, and neither acknowledged nor refused."""
    refused: frozenset[str]
    recovered: frozenset[str]
    """Unknown ones that took effect."""
    lost: tuple[Lost, ...] = ()
    faults: tuple[str, ...] = ()
    """One sentence for each broken promise; empty when all were kept."""
    repeats: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many effects of each group were not the first of their id."""

    def __str__(self) -> str:
        said = "\n".join(self.faults) or "all promises were kept"
        return (
            f"{len(self.acknowledged)} acknowledged, {len(self.unknown)} unknown"
            f" ({len(self.recovered)} recovered), {len(self.refused)} refused,"
            f" repeats {dict(self.repeats)}\n{said}"
        )


def check(history: Iterable[Entry], groups: Sequence[str], rules: Rules = Rules()) -> Report:
    """Judge a finished history: each of `groups` must have had all that was acknowledged.

    Call it when everything has come to rest; what is still on its way counts as lost.
    """
    book = _Book(history)
    lost = tuple(found for group in groups for found in _lost(book, group))
    faults = [*_void(book), *map(str, lost), *_phantoms(book), *_altered(book)]
    for group in groups:
        faults += _again(book, group, rules)
        if rules.ordered:
            faults += _disorder(book, group, rules)
    if rules.ordered:
        faults += _order_of("the wire", _firsts(book.of("wire", "")))
    return Report(
        acknowledged=frozenset(book.acknowledged),
        unknown=frozenset(book.unknown),
        refused=frozenset(book.refused),
        recovered=frozenset(book.unknown & book.arrived),
        lost=lost,
        faults=tuple(faults),
        repeats={group: _repeats(book, group).total() for group in groups},
    )


class _Book:
    """The entries in their order, and the sets that all checks speak of."""

    def __init__(self, history: Iterable[Entry]) -> None:
        self.all = sorted(history, key=lambda entry: entry.mono)
        self._by_op: defaultdict[tuple[Op, str], list[Entry]] = defaultdict(list)
        tries: defaultdict[str, set[How]] = defaultdict(set)
        pending: Counter[str] = Counter()  # attempts that nobody wrote the end of
        for entry in self.all:
            self._by_op[entry.op, entry.group].append(entry)
            if entry.op == "publish":
                tries[entry.id].add(entry.type)
                pending[entry.id] += 1 if entry.type == "invoke" else -1
        self.attempted = set(tries)
        self.acknowledged = {id_ for id_, seen in tries.items() if "ok" in seen}
        self.refused = {
            id_ for id_, seen in tries.items() if seen <= {"invoke", "fail"} and pending[id_] <= 0
        }
        self.unknown = self.attempted - self.acknowledged - self.refused
        self.arrived = {entry.id for entry in self.all if entry.op in {"wire", "effect", "dead"}}

    def of(self, op: Op, group: str) -> list[Entry]:
        return self._by_op[op, group]

    def ids(self, op: Op, group: str) -> set[str]:
        return {entry.id for entry in self._by_op[op, group]}

    def given_up(self, group: str) -> set[str]:
        return self.ids("dead", group) | self.ids("expire", group)


def _void(book: _Book) -> Iterator[str]:
    """A run in which nothing was acknowledged proves nothing."""
    if not book.acknowledged:
        yield "the run is void: nothing was acknowledged"


def _lost(book: _Book, group: str) -> Iterator[Lost]:
    """Acknowledged minus consumed, by producer in the order of its acknowledgements."""
    seen = book.ids("effect", group) | book.given_up(group)
    by_producer: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for entry in book.all:
        if entry.op == "publish" and entry.type == "ok":
            by_producer[entry.proc][entry.id] = None
    for producer, sent in by_producer.items():
        arrived = [place for place, id_ in enumerate(sent) if id_ in seen]
        found: defaultdict[Where, list[str]] = defaultdict(list)
        for place, id_ in enumerate(sent):
            if id_ not in seen:
                found[_where(place, arrived)].append(id_)
        for where, ids in found.items():
            yield Lost(group, producer, tuple(ids), where)


def _where(place: int, arrived: Sequence[int]) -> Where:
    if not arrived:
        return "all"
    return "prefix" if place < arrived[0] else "postfix" if place > arrived[-1] else "middle"


def _phantoms(book: _Book) -> Iterator[str]:
    """Consumed minus attempted, and what was refused and came all the same."""
    if strange := book.arrived - book.attempted:
        yield f"nobody published {some(strange)}"
    if there := book.arrived & book.refused:
        yield f"refused, and there all the same: {some(there)}"


def _altered(book: _Book) -> Iterator[str]:
    """One id, one body."""
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    for entry in book.all:
        if entry.hash:
            bodies[entry.id].add(entry.hash)
    if altered := [id_ for id_, hashes in bodies.items() if len(hashes) > 1]:
        yield f"several bodies under one id: {some(altered)}"


def _repeats(book: _Book, group: str) -> Counter[str]:
    """Effects beyond the first of each id."""
    times = Counter(entry.id for entry in book.of("effect", group))
    return times - Counter(times.keys())


def _again(book: _Book, group: str, rules: Rules) -> Iterator[str]:
    """What took effect more often than it may, or is both handled and dead."""
    redriven = book.ids("redrive", group)
    if rules.once and (twice := _repeats(book, group).keys() - redriven):
        yield f"{group} did twice: {some(twice)}"
    if not rules.settles_durably:
        return
    settled: dict[str, float] = {}
    for entry in book.of("settle", group):
        settled.setdefault(entry.id, entry.mono)
    late = [
        entry.id
        for entry in book.of("effect", group)
        if entry.mono > settled.get(entry.id, entry.mono) and entry.id not in redriven
    ]
    if late:
        yield f"{group} had again after its Done: {some(late)}"
    handled = book.ids("effect", group) if rules.once else settled.keys()
    if both := (book.ids("dead", group) & handled) - redriven:
        yield f"{group} has handled and dead: {some(both)}"


def _disorder(book: _Book, group: str, rules: Rules) -> Iterator[str]:
    """Per key, the first effects rise; what they skip was refused, unknown, or given up."""
    firsts = _firsts(book.of("effect", group))
    yield from _order_of(group, firsts)
    if rules.gaps:
        return
    given_up = book.given_up(group)
    for key, seen in firsts.items():
        last = max(entry.key_seq for entry in seen)
        skipped = {
            entry.id
            for entry in book.all
            if entry.op == "publish" and entry.key == key and entry.key_seq < last
        }
        if gap := (skipped & given_up) - {entry.id for entry in seen}:
            yield f"{group} went on with key {key} past {some(gap)}"


def _order_of(who: str, firsts: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    for key, seen in firsts.items():
        for before, after in pairwise(seen):
            if after.key_seq <= before.key_seq:
                yield f"{who} had {before.id} of key {key} before {after.id}"
                break


def _firsts(seen: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The first occurrence of each keyed id, by key."""
    firsts: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in seen:
        if entry.key is not None:
            firsts[entry.key].setdefault(entry.id, entry)
    return {key: list(by_id.values()) for key, by_id in firsts.items()}


def some(ids: Iterable[str]) -> str:
    """How many, and the first few by name."""
    found = list(ids)
    more = ", ..." if len(found) > SHOWN else ""
    return f"{len(found)} ({', '.join(sorted(found)[:SHOWN])}{more})"
