"""Trace context over the wire: read by OpenTelemetry's propagators, and bounded before that.

Which formats are spoken is OpenTelemetry's own setting (``OTEL_PROPAGATORS``; W3C trace context
and baggage by default). Baggage and trace headers come from strangers: they are cut to a size
before anybody parses them.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import propagate
from opentelemetry.context import Context as OtelContext

from callcast.core.context import Context
from callcast.core.message import NO_HEADERS, Message
from callcast.core.work import Kind, Work
from callcast.telemetry.names import BAGGAGE, TRACEPARENT, TRACESTATE

BAGGAGE_MEMBERS_MAX = 64
BAGGAGE_MAX_BYTES = 8192
TRACEPARENT_MAX_BYTES = 128
"""A traceparent has 55; later versions of the standard may append to it."""
TRACESTATE_MAX_BYTES = 4096
"""32 list members of 128 characters each, more than the standard asks to keep."""

_B3 = frozenset({"b3", "x-b3-traceid"})
_HANDED_ON = (TRACEPARENT, TRACESTATE, BAGGAGE)


def incoming(work: Work) -> Mapping[str, str]:
    """What came with this work: the headers of the request, or of the message."""
    if work.message is not None and work.kind is Kind.CONSUME:
        return message_carrier(work.message)
    return NO_HEADERS if work.context is None else work.context.headers


def message_carrier(message: Message) -> Mapping[str, str]:
    """The trace headers of a message, whose trace context are fields of their own."""
    carrier = dict(message.headers)
    if message.traceparent is not None:
        carrier[TRACEPARENT] = message.traceparent
    if message.tracestate is not None:
        carrier[TRACESTATE] = message.tracestate
    return carrier


def creation(work: Work) -> OtelContext | None:
    """The context in which a message that is published now was created, if that was earlier.

    What leaves an outbox goes on with the trace of the transaction that put it there; None means
    the current context.
    """
    message = work.message
    if work.kind is not Kind.PUBLISH or message is None:
        return None
    if message.traceparent is None and _B3.isdisjoint(message.headers):
        return None
    return extracted(message_carrier(message))


def extracted(carrier: Mapping[str, str]) -> OtelContext:
    """The context that came in, empty when there was none; nothing ambient is in it."""
    if not carrier:
        return OtelContext()
    return propagate.extract(bounded(carrier), OtelContext())


def injected(context: OtelContext | None = None) -> dict[str, str]:
    """The headers that hand on this context (the current one by default)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return carrier


def bounded(carrier: Mapping[str, str]) -> dict[str, str]:
    """The same headers with baggage cut to its bounds, and without overlong trace headers."""
    kept = dict(carrier)
    if len(kept.get(TRACEPARENT, "")) > TRACEPARENT_MAX_BYTES:
        del kept[TRACEPARENT]
    if len(kept.get(TRACESTATE, "")) > TRACESTATE_MAX_BYTES:
        del kept[TRACESTATE]
    if BAGGAGE in kept:
        kept[BAGGAGE] = capped_baggage(kept[BAGGAGE])
    return kept


def capped_baggage(text: str) -> str:
    """At most 64 members and 8192 bytes of it: whole members, from the front."""
    members = text.split(",", BAGGAGE_MEMBERS_MAX)[:BAGGAGE_MEMBERS_MAX]
    size = -1  # no comma before the first
    for count, member in enumerate(members):
        size += 1 + len(member.encode())
        if size > BAGGAGE_MAX_BYTES:
            return ",".join(members[:count])
    return ",".join(members)


def passed_on(context: Context | None) -> Mapping[str, str]:
    """What came in with the ambient work, handed on as it is: nobody here adds to the trace."""
    if context is None or not context.headers:
        return NO_HEADERS
    headers = context.headers
    traceparent = headers.get(TRACEPARENT)
    if TRACESTATE in headers or BAGGAGE in headers or traceparent is None:
        found = {name: headers[name] for name in _HANDED_ON if name in headers}
        return bounded(found) if found else NO_HEADERS
    # Most requests carry this one alone: measured, it costs a third of the way above.
    return {TRACEPARENT: traceparent} if len(traceparent) <= TRACEPARENT_MAX_BYTES else NO_HEADERS
