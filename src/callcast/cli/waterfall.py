"""The spans of one order as a waterfall: who came of whom, when, how long, and what it waited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from callcast.cli.output import cell
from callcast.core.recorded import RecordedSpan

WIDTH = 32
"""Characters of the picture of time."""
_RAN, _WAITED, _FAILED = "█", "·", "▒"


class Bar(Struct, frozen=True):
    """One span in its place."""

    span: RecordedSpan
    depth: int
    at: float
    """Seconds after the beginning of it all."""
    waited: float | None = None
    """Seconds that a message was in its queue before this; None of what is no handling."""
    linked: bool = False
    """Whether it begins a trace of its own that links here: what was redriven."""

    def record(self) -> dict[str, object]:
        """As JSON says it."""
        span = self.span
        return {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "service": span.service,
            "name": span.name,
            "kind": span.kind,
            "depth": self.depth,
            "at": self.at,
            "took": span.took,
            "waited": self.waited,
            "is_error": span.is_error,
            "links": [list(link) for link in span.links],
            "message_id": span.message_id,
            "correlation_id": span.correlation_id,
            "attributes": dict(span.attributes),
        }


def bars(spans: Sequence[RecordedSpan]) -> Sequence[Bar]:
    """All spans, each below the one it came of; what is linked stands at the end."""
    known = {span.span_id: span for span in spans}
    children: dict[str, list[RecordedSpan]] = {}
    for span in sorted(spans, key=lambda each: each.start):
        parent = span.parent_id if span.parent_id in known else ""
        children.setdefault(parent, []).append(span)
    began = min((span.start for span in spans), default=0.0)
    roots = sorted(children.get("", ()), key=lambda each: (bool(each.links), each.start))
    return [bar for root in roots for bar in _below(root, children, (known, began))]


def drawn(found: Sequence[Bar]) -> Iterator[str]:
    """The lines of the picture."""
    spans = [bar.span for bar in found]
    began = min(span.start for span in spans)
    whole = max(max(span.start + span.took for span in spans) - began, 1e-9)
    services = max(len(cell(span.service)) for span in spans)
    names = max(len(_named(bar)) for bar in found)
    for bar in found:
        span = bar.span
        yield (
            f"{_short(bar.at):>9}  {_picture(bar, whole)}  {_short(span.took):>9}"
            f"  {cell(span.service):<{services}}  {_named(bar):<{names}}  {_said(bar)}"
        ).rstrip()


def _below(
    root: RecordedSpan,
    children: Mapping[str, Sequence[RecordedSpan]],
    known: tuple[Mapping[str, RecordedSpan], float],
) -> Iterator[Bar]:
    """The root and all below it, without recursion: a trace may be deep, and ids may be wrong."""
    by_id, began = known
    stack = [(root, 0)]
    seen: set[int] = set()
    while stack:
        span, depth = stack.pop()
        if id(span) in seen:
            continue
        seen.add(id(span))
        is_linked = bool(span.links) and not depth
        yield Bar(span, depth, span.start - began, _waited(span, by_id), is_linked)
        below = children.get(span.span_id, ())
        stack.extend((child, depth + 1) for child in reversed(below))


def _waited(span: RecordedSpan, by_id: Mapping[str, RecordedSpan]) -> float | None:
    if span.kind != "consumer":
        return None
    ids = (span.parent_id, *(link[1] for link in span.links))
    origin = next((by_id[id_] for id_ in ids if id_ in by_id), None)
    if origin is None or origin.kind != "producer":
        return None
    return max(0.0, span.start - (origin.start + origin.took))


def _picture(bar: Bar, whole: float) -> str:
    scale = WIDTH / whole
    begin = min(int(bar.at * scale), WIDTH - 1)
    end = min(max(begin + 1, round((bar.at + bar.span.took) * scale)), WIDTH)
    queued = begin - min(begin, int((bar.at - (bar.waited or 0.0)) * scale))
    mark = _FAILED if bar.span.is_error else _RAN
    row = " " * (begin - queued) + _WAITED * queued + mark * (end - begin)
    return f"|{row:<{WIDTH}}|"


def _named(bar: Bar) -> str:
    return f"{'  ' * bar.depth}{cell(bar.span.name)}"


def _said(bar: Bar) -> str:
    parts: list[str] = []
    if bar.waited is not None:
        parts.append(f"waited {_short(bar.waited)} in the queue")
    if bar.linked:
        parts.append("a trace of its own, linked: redriven")
    if bar.span.is_error:
        parts.append(f"failed: {cell(bar.span.attributes.get('error.type', 'error'))}")
    return ", ".join(parts)


def _short(value: float) -> str:
    return f"{value:.2f} s" if value >= 1.0 else f"{1000 * value:.1f} ms"
