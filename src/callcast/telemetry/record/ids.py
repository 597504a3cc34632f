"""Trace and span ids without a tracer: derived from the ids that travel anyway.

Nothing is added to a message for them, and no ``traceparent`` is begun. It could not be right: its
sampled flag would have to say something. 00 would keep every SDK further on from tracing what
comes through here, for they follow their parent; 01 would make all of them record everything,
whatever share they were told to sample. So the trace is named after the correlation id, the spans
after the ids of messages and calls, and a ``traceparent`` that came in goes on as it is: its trace
id is used here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from callcast.core.context import Context
from callcast.telemetry.names import TRACEPARENT

_VERSION_00 = 55
_TRACE = slice(3, 35)
_SPAN = slice(36, 52)
_HEX = frozenset("0123456789abcdef")


def trace_of(correlation_id: str, again: str = "") -> str:
    """The trace of all that came of one first request; `again` counts the redrives."""
    return _digest(16, "trace", correlation_id, again)


def publish_span(message_id: str) -> str:
    """The span in which this message was published."""
    return _digest(8, "publish", message_id)


def call_span(call_id: str) -> str:
    """The span around all attempts of this call."""
    return _digest(8, "call", call_id)


def attempt_span(call_id: str, attempt: int) -> str:
    """The span of one attempt of it."""
    return _digest(8, "attempt", call_id, str(attempt))


def run_span(id: str, group: str, name: str, *, tries: int = 0) -> str:
    """The span of handling a message, or of serving a call.

    What the handler does has it as its parent; it does not know the round, so the reader puts it
    beneath the round in whose time it lies.
    """
    return _digest(8, "run", id, group, name, str(tries) if tries else "")


def span_around(context: Context | None) -> str:
    """The span of the handler that runs; empty outside of any."""
    return "" if context is None else run_span(context.message_id, context.service, context.name)


def came(headers: Mapping[str, str]) -> tuple[str, str]:
    """Trace and span id of the ``traceparent`` among these headers; empty when there is none."""
    return parsed(headers.get(TRACEPARENT))


def parsed(traceparent: str | None) -> tuple[str, str]:
    """Trace and span id of a ``traceparent``; empty for what is none."""
    if traceparent is None or len(traceparent) < _VERSION_00:
        return "", ""
    trace, span = traceparent[_TRACE], traceparent[_SPAN]
    if not (_HEX.issuperset(trace) and _HEX.issuperset(span)) or not trace.strip("0"):
        return "", ""
    return trace, span


def _digest(size: int, *parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=size).hexdigest()
