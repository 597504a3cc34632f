"""What the local record says: edges with counts and histograms, and spans. Read by `advise` too.

Each process writes what it sees of an interaction from its own side:

| verb    | side   | caller        | callee      | has                                        |
|---------|--------|---------------|-------------|--------------------------------------------|
| call    | caller | the service   | the service | latency, errors, attempts, calls per trace |
| call    | callee | "" (not sent) | the service | work, errors                               |
| cast    | caller | the service   | the service | latency until durable, errors              |
| cast    | callee | the sender    | its group   | work, queue time, outcomes, attempts       |
| publish | caller | the service   | ""          | latency until durable, errors              |
| publish | callee | the publisher | its group   | work, queue time, outcomes, attempts       |

Caller and callee of one interaction are joined by caller and name of a message, and by callee and
name of a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from msgspec import Struct, field

from callcast.core.histogram import Histogram

Side: TypeAlias = Literal["caller", "callee"]
RecordedVerb: TypeAlias = Literal["call", "cast", "publish", "request"]
SpanKind: TypeAlias = Literal["client", "server", "producer", "consumer", "internal"]
CALL_ID = "callcast-call-id"
"""Header of a call where no tracer tells them apart: the span around its attempts is named after
it, and is the parent of the served one."""
OTHER = "_OTHER"
"""Stands for all edges beyond the bound of distinct ones."""
NO_ATTRIBUTES: Mapping[str, str | int | float | bool] = MappingProxyType({})


class RecordedEdge(Struct, kw_only=True):
    """What the processes on one side of an interaction saw of it, in `window` seconds."""

    caller: str
    callee: str
    name: str
    """The contract's name."""
    verb: RecordedVerb
    side: Side
    count: int = 0
    """How often it was made (caller) or handled (callee); attempts of one counted once."""
    errors: int = 0
    """Of these: failed for the caller; of messages at the callee, went dead."""
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    """Verdicts to how often: done, later, dead, release; of a failed call, its error's class."""
    attempts: int = 0
    """All attempts of all `count`."""
    attempt_errors: int = 0
    latency: Histogram = field(default_factory=Histogram)
    """Seconds that the caller waited; of a cast or publish, until the message was durable."""
    work: Histogram = field(default_factory=Histogram)
    """Seconds that the callee took."""
    queue_time: Histogram = field(default_factory=Histogram)
    """Seconds from publish to the start of handling."""
    traces: int = 0
    """In how many traces it was made at all; with `count`, calls per trace (caller)."""
    calls_per_trace_max: int = 0
    peak_rate: float = 0.0
    """A second, over the busiest ten seconds."""
    window: float = 0.0
    """Seconds between the first and the last thing that this was summed from."""


class RecordedSpan(Struct, frozen=True, kw_only=True):
    """One span of the ring; its first fields are those of `advise.model.Span`."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    service: str
    name: str
    kind: SpanKind = "internal"
    start: float
    """Seconds since the epoch."""
    took: float
    """Seconds."""
    is_error: bool = False
    attributes: Mapping[str, str | int | float | bool] = NO_ATTRIBUTES
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span id of each."""
    message_id: str = ""
    """Of the message or call."""
    correlation_id: str = ""
    causation_id: str = ""
