"""What handlers do, from many runs of each: in which order, side by side or not, how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from msgspec import Struct, field

from callcast.advise.model import Edge, Handler, Span, Step
from callcast.advise.traces.tree import Called, ended
from callcast.core.histogram import Histogram

Key = tuple[str, str]
OVERLAP = 0.5
"""Two calls are side by side when they were in this share of the runs that made both."""


HANDLERS_MAX = 10_000
"""Of what services handle, so much is told apart: names with an id in them would be without end."""
NEXT_MAX = 64
"""With so many later calls each is compared: a run may make thousands."""


class _Seen(Struct):
    """One handler, over all its runs."""

    runs: int = 0
    entries: int = 0
    own_errors: int = 0
    own: Histogram = field(default_factory=Histogram)
    made: Counter[Edge] = field(default_factory=Counter[Edge])  # in how many runs
    places: Counter[Edge] = field(default_factory=Counter[Edge])  # the sum of their places
    beside: Counter[tuple[Edge, Edge]] = field(default_factory=Counter[tuple[Edge, Edge]])


class Stepping:
    """Told every run of every handler."""

    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}
        self._sent_by: tuple[str, set[Edge]] = ("", set())

    def saw(
        self, key: Key, span: Span, calls: Sequence[tuple[Edge, Called]], *, is_entry: bool
    ) -> None:
        """One run, with the calls that it made."""
        if key not in self._seen and len(self._seen) >= HANDLERS_MAX:
            return
        seen = self._seen.setdefault(key, _Seen())
        seen.runs += 1
        seen.entries += is_entry
        failed = any(called.attempts[-1].is_error for _, called in calls)
        seen.own_errors += span.is_error and not failed
        seen.own.record(max(0.0, span.took - _waited(span, calls)))
        for place, edge in enumerate(dict.fromkeys(edge for edge, _ in calls)):
            seen.made[edge] += 1
            seen.places[edge] += place
        seen.beside.update(_beside(calls))

    def sent(self, key: Key, edge: Edge, run: Span) -> None:
        """One run sent this message; told after `saw`, more than once where several listen."""
        seen = self._seen.get(key)
        if seen is None:
            return
        last, edges = self._sent_by
        if last != run.span_id:
            edges = set[Edge]()
            self._sent_by = (run.span_id, edges)
        if edge not in edges:
            edges.add(edge)
            seen.made[edge] += 1
            seen.places[edge] += len(seen.made)

    def handlers(self, without: Collection[Edge]) -> dict[Key, Handler]:
        """All of them, without the steps that are only answers."""
        return {key: _handler(key, seen, without) for key, seen in self._seen.items()}


def _beside(calls: Sequence[tuple[Edge, Called]]) -> set[tuple[Edge, Edge]]:
    """Which of them were side by side, both ways round."""
    found: set[tuple[Edge, Edge]] = set()
    ordered = sorted(calls, key=lambda each: each[1].start)
    for number, (edge, called) in enumerate(ordered):
        for other, beside in ordered[number + 1 : number + 1 + NEXT_MAX]:
            if beside.start >= called.end:
                break
            if other != edge and (edge, other) not in found and beside.end > called.start:
                found |= {(edge, other), (other, edge)}
    return found


def _waited(span: Span, calls: Sequence[tuple[Edge, Called]]) -> float:
    """Seconds of its time in which at least one call was under way."""
    waited, until = 0.0, span.start
    for _, called in sorted(calls, key=lambda each: each[1].start):
        began, end = max(called.start, until), min(called.end, ended(span))
        if end > began:
            waited += end - began
            until = end
    return waited


def _handler(key: Key, seen: _Seen, without: Collection[Edge]) -> Handler:
    ordered = sorted(seen.made, key=lambda edge: seen.places[edge] / seen.made[edge])
    steps: list[Step] = []
    group = 0
    for edge in ordered:
        if edge in without:
            continue
        if steps and not _is_beside(seen, steps[-1].edge, edge):
            group += 1
        steps.append(Step(edge, group, min(1.0, seen.made[edge] / seen.runs)))
    return Handler(
        service=key[0],
        name=key[1],
        steps=tuple(steps),
        own=seen.own,
        availability=1.0 - seen.own_errors / seen.runs,
        is_entry=seen.entries > 0,
    )


def _is_beside(seen: _Seen, one: Edge, other: Edge) -> bool:
    both = min(seen.made[one], seen.made[other])
    return seen.beside[one, other] >= OVERLAP * both
