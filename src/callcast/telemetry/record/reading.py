"""What the record says, put together from all processes: edges, and the spans of one order.

Reading needs no SDK, makes no file, and locks nobody out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from callcast.core.recorded import RecordedEdge, RecordedSpan, RecordedVerb, Side
from callcast.telemetry.record.book import COARSE, FINE, Entry, summed
from callcast.telemetry.record.file import read_edges, read_spans

_Path = tuple[str, str, str, RecordedVerb, Side]

IDS_MAX = 500
"""Correlation ids that one trace is followed by."""


def edges(path: str) -> Sequence[RecordedEdge]:
    """All that is kept of each edge, of all processes, from both sides.

    What was cast is known from the callee's side, where the caller only knew that it published.
    Raises `Unavailable` when there is no record.
    """
    return _joined(entry for _, entry in read_edges(path, COARSE, 0.0))


def edges_since(path: str, since: float) -> Sequence[RecordedEdge]:
    """The same of what was seen since then (wall clock); for the last quarter of an hour only.

    Slots are whole: up to ten seconds from before `since` are in it, and in the windows.
    """
    return _joined(entry for _, entry in read_edges(path, FINE, since - FINE))


def spans(path: str) -> Sequence[RecordedSpan]:
    """All spans that are kept, by their start, each beneath its parent if that is kept too."""
    return _placed(read_spans(path))


def spans_of(path: str, id: str) -> Sequence[RecordedSpan]:
    """The spans of one order: `id` is that of a trace, a message, or the correlation id.

    All that shares their correlation ids is in it, whatever trace it is in. Empty when nothing
    is known by this id.
    """
    found = read_spans(path, [id])
    known: set[str] = {id}
    while True:
        more = {each.correlation_id for each in found} | {each.trace_id for each in found}
        more = {each for each in more if each} - known
        if not more or len(known) + len(more) > IDS_MAX:
            return _placed(found)
        known |= more
        found = read_spans(path, sorted(known))


def _joined(entries: Iterable[Entry]) -> Sequence[RecordedEdge]:
    joined: dict[_Path, RecordedEdge] = {}
    times: dict[_Path, tuple[float, float]] = {}
    peaks: dict[_Path, dict[float, float]] = {}
    for entry in entries:
        edge = entry.edge
        key = (edge.caller, edge.callee, edge.name, edge.verb, edge.side)
        first, last = times.get(key, (entry.since, entry.until))
        times[key] = (min(first, entry.since), max(last, entry.until))
        # Of several processes at once the peaks add up: an upper bound, for they need not meet.
        at = peaks.setdefault(key, {})
        at[entry.start] = at.get(entry.start, 0.0) + edge.peak_rate
        if key in joined:
            summed(joined[key], edge)
        else:
            joined[key] = edge
    for key, edge in joined.items():
        edge.window = max(0.0, times[key][1] - times[key][0])
        edge.peak_rate = max(peaks[key].values())
    return _named(list(joined.values()))


def _named(found: Sequence[RecordedEdge]) -> Sequence[RecordedEdge]:
    """Say cast where the callee's side knows it, and its one callee."""
    casts = {
        (edge.caller, edge.name): edge
        for edge in found
        if edge.side == "callee" and edge.verb in {"cast", "request"}
    }
    for edge in found:
        known = casts.get((edge.caller, edge.name))
        if edge.side == "caller" and edge.verb == "publish" and known is not None:
            edge.verb, edge.callee = known.verb, known.callee
    return sorted(found, key=lambda edge: (edge.caller, edge.callee, edge.name, edge.side))


def _placed(found: Sequence[RecordedSpan]) -> Sequence[RecordedSpan]:
    """Give each span a parent that is kept, where one can be told from the ids."""
    by_id = {span.span_id: span for span in found}
    runs: dict[str, list[RecordedSpan]] = {}
    published: dict[str, str] = {}
    for span in found:
        if span.kind in {"server", "consumer"}:
            runs.setdefault(span.message_id, []).append(span)
        elif span.kind == "producer":
            published[span.message_id] = span.span_id
    return [_beneath(span, by_id, (runs, published)) for span in found]


def _beneath(
    span: RecordedSpan,
    by_id: Mapping[str, RecordedSpan],
    known: tuple[Mapping[str, Sequence[RecordedSpan]], Mapping[str, str]],
) -> RecordedSpan:
    runs, published = known
    if span.kind in {"server", "consumer"}:
        if span.parent_id in by_id or span.links:
            return span
        origin = published.get(span.message_id, "") if span.kind == "consumer" else ""
        return replace(span, parent_id=origin) if origin else span
    parent = by_id.get(span.parent_id)
    if parent is not None and (parent.kind != "consumer" or _covers(parent, span)):
        return span
    # Of several rounds of one message it is that in whose time this was begun.
    rounds = runs.get(span.causation_id, ()) if span.causation_id else ()
    around = [run for run in rounds if _covers(run, span)]
    chosen = around or [run for run in rounds if run.start <= span.start]
    if not chosen:
        return span
    return replace(span, parent_id=max(chosen, key=lambda run: run.start).span_id)


def _covers(run: RecordedSpan, span: RecordedSpan) -> bool:
    return run.start - _SKEW <= span.start <= run.start + run.took + _SKEW


_SKEW = 0.002
"""Seconds that clocks of one machine may seem to differ: a start is computed from the end."""
