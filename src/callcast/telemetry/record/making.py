"""Spans of the record from pieces of work: the same names and attributes as a tracer's."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from callcast.core.context import AMBIENT, Context
from callcast.core.message import NO_HEADERS, Message
from callcast.core.outcome import Dead, Later, Outcome
from callcast.core.recorded import CALL_ID, RecordedSpan, SpanKind
from callcast.core.work import CALL, CONSUME, PUBLISH, SERVE, Work
from callcast.policies.telling import ids_of
from callcast.telemetry import names
from callcast.telemetry.record import ids
from callcast.telemetry.spans import (
    Described,
    error_type,
    outcome_type,
)

_LINKED = tuple[tuple[str, str], ...]


class Place(Struct, frozen=True):
    """Where a span is in its trace."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    links: _LINKED = ()


class Took(Struct, frozen=True):
    """When it was, and how it ended."""

    start: float
    seconds: float
    error: str = ""
    """A value of ``error.type``; empty when there was none."""


def span_of(work: Work, what: Described, *, service: str, place: Place, took: Took) -> RecordedSpan:
    """The span of this work in the service whose it is."""
    said = ids_of(work)
    attributes = dict(what.attributes)
    if took.error:
        attributes[names.ERROR_TYPE] = took.error
    return RecordedSpan(
        trace_id=place.trace_id,
        span_id=place.span_id,
        parent_id=place.parent_id,
        service=service,
        name=what.name,
        kind=_KINDS[what.kind.name],
        start=took.start,
        took=took.seconds,
        is_error=bool(took.error),
        attributes=attributes,
        links=place.links,
        message_id=work.id,
        correlation_id=correlation_of(work),
        causation_id="" if said is None else _cause(work, said),
    )


def place_of(work: Work) -> Place:
    """Where this work is, by the ids that travel with it."""
    if work.kind is SERVE:
        return _served(work)
    if work.kind is CONSUME and work.message is not None:
        return _handled(work, work.message)
    context = context_around(work)
    trace = _trace(context, correlation_of(work))
    own = ids.publish_span(work.id) if work.kind is PUBLISH else ids.call_span(work.id)
    return Place(trace, own, ids.span_around(context))


def place_of_attempt(work: Work) -> Place:
    """Where this attempt of a call is."""
    trace = _trace(work.context, correlation_of(work))
    return Place(trace, ids.attempt_span(work.id, work.attempt), ids.call_span(work.id))


def correlation_of(work: Work) -> str:
    """What is shared by all that came of one first request."""
    message = work.message
    if message is not None:
        return message.correlation_id or message.id
    return work.id if work.context is None else work.context.correlation_id


def context_around(work: Work) -> Context | None:
    """The context of the handler in which this was called or sent; None outside of any."""
    if work.kind is CALL:
        return work.context
    context = AMBIENT.get()
    cause = None if work.message is None else work.message.causation_id
    # What leaves an outbox is sent by nobody's handler, whatever is ambient there.
    return context if context is not None and context.message_id == cause else None


def failure_of(error: BaseException | None, *, is_served: bool = False) -> str:
    """A value of ``error.type``; a cancellation is no failure: its caller went away."""
    return error_type(error, is_served=is_served) if isinstance(error, Exception) else ""


def failure_in(outcome: Outcome) -> str:
    """The same of a verdict."""
    return outcome_type(outcome) if isinstance(outcome, (Later, Dead)) else ""


def is_redriven(message: Message) -> bool:
    """Whether it was taken back from the dead letters."""
    return names.REDRIVE_COUNT in message.headers


def incoming_trace(message: Message) -> tuple[str, str]:
    """Trace and span in which it was published, as far as the message says."""
    trace, span = ids.parsed(message.traceparent)
    if trace:
        return trace, span
    return ids.trace_of(message.correlation_id or message.id), ids.publish_span(message.id)


def _served(work: Work) -> Place:
    context = work.context
    headers: Mapping[str, str] = NO_HEADERS if context is None else context.headers
    trace, parent = ids.came(headers)
    call_id = headers.get(CALL_ID)
    if call_id:
        # Within the process there are no spans of attempts.
        parent = ids.attempt_span(call_id, work.attempt) if work.url else ids.call_span(call_id)
    return Place(trace or ids.trace_of(correlation_of(work)), ids.span_around(context), parent)


def _handled(work: Work, message: Message) -> Place:
    trace, parent = incoming_trace(message)
    own = ids.run_span(message.id, work.peer, work.name, tries=work.round + work.crashes)
    if is_redriven(message):
        again = message.headers[names.REDRIVE_COUNT]
        own = ids.run_span(message.id, work.peer, f"{work.name} {again}", tries=work.round)
        correlation = message.correlation_id or message.id
        return Place(ids.trace_of(correlation, again), own, links=((trace, parent),))
    return Place(trace, own, parent)


def _trace(context: Context | None, correlation_id: str) -> str:
    trace = "" if context is None else ids.came(context.headers)[0]
    return trace or ids.trace_of(correlation_id)


def _cause(work: Work, said: Context) -> str:
    if work.kind is SERVE:
        return (work.context and work.context.causation_id) or ""
    return said.causation_id or ""


_KINDS: Mapping[str, SpanKind] = {
    "INTERNAL": "internal",
    "CLIENT": "client",
    "SERVER": "server",
    "PRODUCER": "producer",
    "CONSUMER": "consumer",
}
