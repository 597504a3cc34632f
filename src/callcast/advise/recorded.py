"""A `System` from the local record: its spans say who does what in which order, its edges count.

The record keeps few spans and counts everything: numbers are its edges', shape is its spans'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from callcast.advise.model import Edge, Handler, Interaction, Measured, Span, System, Verb
from callcast.advise.traces.measuring import measured
from callcast.advise.traces.words import is_reply
from callcast.core.recorded import OTHER, RecordedEdge, RecordedSpan


def from_record(
    edges: Sequence[RecordedEdge], spans: Iterable[RecordedSpan], name: str = "the local record"
) -> System:
    """What all processes wrote, joined by caller, callee and name."""
    system = measured((_span(each) for each in spans), [name])
    found = dict(system.interactions)
    served = {(each.callee, each.name): each for each in edges if _is_served(each)}
    senders = {(each.caller, each.name): each for each in edges if each.side == "caller"}
    sent_by = {
        (edge.callee, edge.name): edge.caller
        for edge, about in system.interactions.items()
        if about.verb is not Verb.CALL
    }
    for each in edges:
        if OTHER in {each.caller, each.callee, each.name} or is_reply(each.name):
            continue
        # Where a bus hosts several services, its messages bear its name, and its spans theirs.
        caller = sent_by.get((each.callee, each.name), each.caller)
        edge = Edge(each.caller if each.verb == "call" else caller, each.callee, each.name)
        if each.verb == "call" and each.side == "caller":
            handled = served.get((edge.callee, edge.name))
            found[edge] = _interaction(edge, found.get(edge), each, handled=handled)
        elif each.verb != "call" and each.side == "callee" and each.caller:
            sender = senders.get((each.caller, each.name))
            found[edge] = _interaction(edge, found.get(edge), each, handled=each, sent=sender)
    known = {(e.caller, e.callee, e.name) for e in found}
    others = sum(1 for each in edges if OTHER in {each.caller, each.callee, each.name})
    dropped = dict(system.dropped)
    if others:
        dropped["edges beyond the bound of the record, counted together"] = others
    handlers = {
        key: replace(
            handler,
            steps=tuple(s for s in handler.steps if _key(s.edge) in known),
            availability=_available(handler, served.get(key)),
        )
        for key, handler in system.handlers.items()
    }
    window = max([system.window, *(each.window for each in edges)], default=0.0)
    return replace(system, interactions=found, handlers=handlers, dropped=dropped, window=window)


def _available(handler: Handler, served: RecordedEdge | None) -> float | None:
    """Of how many its failures are: spans are kept of all that failed, of others only some."""
    if handler.availability is None or served is None or served.count <= handler.own.count:
        return handler.availability
    failed = (1.0 - handler.availability) * handler.own.count
    return 1.0 - failed / served.count


def _key(edge: Edge) -> tuple[str, str, str]:
    return edge.caller, edge.callee, edge.name


def _is_served(each: RecordedEdge) -> bool:
    return each.verb == "call" and each.side == "callee"


def _interaction(
    edge: Edge,
    before: Interaction | None,
    each: RecordedEdge,
    *,
    handled: RecordedEdge | None,
    sent: RecordedEdge | None = None,
) -> Interaction:
    """`handled` is what the callee saw of it, `sent` what the sender of a message did."""
    waited = each if sent is None else sent
    numbers = Measured(
        count=each.count,
        errors=each.errors,
        window=each.window,
        peak_rate=each.peak_rate,
        latency=waited.latency,
        attempts=each.attempts,
        attempt_errors=each.attempt_errors,
        traces=waited.traces,
        calls_per_trace_max=waited.calls_per_trace_max,
    )
    if handled is not None:
        numbers.work = handled.work
        numbers.queue_time = handled.queue_time
    if before is None:
        return Interaction(edge=edge, verb=Verb(each.verb), measured=numbers)
    verb = before.verb if before.verb is Verb.REQUEST else Verb(each.verb)
    seen = before.measured
    if seen is not None and seen.count:
        # A loop around a call is seen in spans alone: the record counts each turn as a call.
        again = seen.attempts / seen.count
        numbers.attempts = max(numbers.attempts, round(numbers.count * again))
    return replace(before, verb=verb, measured=numbers)


def _span(each: RecordedSpan) -> Span:
    return Span(**{name: getattr(each, name) for name in Span.__struct_fields__})
