"""One row per interaction, from both sides of the record and what the broker has waiting. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from callcast.core.histogram import Histogram
from callcast.core.recorded import RecordedEdge

LEAST = 0.01
"""Messages a second below which a queue is not said to drain."""


class Waiting(Struct, frozen=True):
    """What a group has before it."""

    backlog: int
    oldest: float
    """Seconds; the age of the oldest that is not done."""


class Row(Struct, kw_only=True):
    """One interaction in the last `window` seconds. Durations are seconds, rates a second."""

    caller: str
    callee: str
    name: str
    verb: str
    rate: float
    """Made, of a call; handled, of a message."""
    took: Histogram = field(default_factory=Histogram)
    """What the caller of a call waited; what the handling of a message took."""
    queue_time: Histogram = field(default_factory=Histogram)
    count: int = 0
    errors: int = 0
    attempts: int = 0
    arrivals: float | None = None
    """Published a second, for messages whose publisher keeps a record too."""
    waiting: Waiting | None = None

    @property
    def drain(self) -> float | None:
        """Seconds until nothing waits, if all goes on as it does; None when it never ends so."""
        if self.waiting is None or not self.waiting.backlog:
            return 0.0
        gain = self.rate - (self.arrivals or 0.0)
        return self.waiting.backlog / gain if gain > LEAST else None

    def record(self) -> dict[str, object]:
        """As JSON and tables say it."""
        is_cast = self.verb != "call"
        waiting = self.waiting
        return {
            "caller": self.caller or "-",
            "callee": self.callee or "-",
            "name": self.name,
            "verb": self.verb,
            "rate": self.rate,
            "p50": self.took.quantile(0.5),
            "p95": self.took.quantile(0.95),
            "p99": self.took.quantile(0.99),
            "count": self.count,
            "errors": self.errors,
            "error_ratio": self.errors / self.count if self.count else 0.0,
            "attempts": self.attempts,
            "queue_p95": self.queue_time.quantile(0.95) if is_cast else None,
            "arrivals": self.arrivals,
            "backlog": None if waiting is None else waiting.backlog,
            "lag": None if waiting is None else waiting.oldest,
            "drain": None if waiting is None else self.drain,
        }


def rows(
    edges: Sequence[RecordedEdge],
    window: float,
    waiting: Mapping[tuple[str, str], Waiting] | None = None,
) -> Sequence[Row]:
    """The rows, calls first; `waiting` is by topic and group."""
    calls = [edge for edge in edges if edge.verb == "call"]
    messages = [edge for edge in edges if edge.verb != "call"]
    return [*_calls(calls, window), *_messages(messages, window, waiting or {})]


def _calls(edges: Sequence[RecordedEdge], window: float) -> Sequence[Row]:
    made = [edge for edge in edges if edge.side == "caller"]
    known = {(edge.callee, edge.name) for edge in made}
    # Who calls without keeping a record is seen from the callee's side alone.
    served = [
        edge for edge in edges if edge.side == "callee" and (edge.callee, edge.name) not in known
    ]
    return [_row(edge, window) for edge in [*made, *served]]


def _messages(
    edges: Sequence[RecordedEdge],
    window: float,
    waiting: Mapping[tuple[str, str], Waiting],
) -> Sequence[Row]:
    sent = {(edge.caller, edge.name): edge for edge in edges if edge.side == "caller"}
    handled = [edge for edge in edges if edge.side == "callee"]
    known = {(edge.caller, edge.name) for edge in handled}
    found: list[Row] = []
    for edge in [*handled, *(edge for key, edge in sent.items() if key not in known)]:
        row = _row(edge, window)
        published = sent.get((edge.caller, edge.name))
        row.arrivals = None if published is None else published.count / window
        row.waiting = _waiting(edge, waiting)
        found.append(row)
    return found


def _row(edge: RecordedEdge, window: float) -> Row:
    return Row(
        caller=edge.caller,
        callee=edge.callee,
        name=edge.name,
        verb=edge.verb,
        rate=edge.count / window,
        took=edge.latency if edge.side == "caller" else edge.work,
        queue_time=edge.queue_time,
        count=edge.count,
        errors=edge.errors,
        attempts=edge.attempts,
    )


def _waiting(edge: RecordedEdge, waiting: Mapping[tuple[str, str], Waiting]) -> Waiting | None:
    """What waits for the callee on the topic of this contract, which may have a version."""
    for (topic, group), found in waiting.items():
        base, _, version = topic.rpartition(".v")
        if group == edge.callee and edge.name in {topic, base if version.isdigit() else topic}:
            return found
    return None
