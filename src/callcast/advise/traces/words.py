"""What spans say of themselves, in the old and the new names of the semantic conventions."""

from __future__ import annotations

import re

from callcast.advise.model import Span

_DESTINATION = (
    "messaging.destination.template",
    "messaging.destination.name",
    "messaging.destination",
    "message_bus.destination",
)
_PEER = (
    "callcast.peer",
    "peer.service",
    "db.namespace",
    "db.name",
    "db.system.name",
    "db.system",
    "server.address",
    "net.peer.name",
    "http.host",
)
_GROUP = (
    "messaging.consumer.group.name",
    "messaging.kafka.consumer.group",
    "messaging.consumer_group",
)
_TEMPORARY = ("messaging.destination.temporary", "messaging.destination.anonymous")
TEMPORARY = "(temporary)"
_METHOD = ("http.request.method", "http.method")
_ROUTE = ("http.route", "url.template")
_PATH = ("http.target", "url.path")
_ID = re.compile(r"/(?:\d+|[0-9a-fA-F-]{8,})(?=/|$)")
"""What in a path is one of many: without it each customer would be an interaction."""
_HANDED_OVER = frozenset({"receive", "settle", "ack", "nack", "commit", "poll"})
"""Operations on a queue that are no handling."""


def first(span: Span, names: tuple[str, ...]) -> str:
    """The first of these attributes that it has, as text; empty when it has none."""
    for name in names:
        value = span.attributes.get(name)
        if value not in {None, ""}:
            return str(value)
    return ""


def number(span: Span, name: str) -> int:
    """An attribute as a whole number; 0 where it is none."""
    try:
        return int(span.attributes.get(name, 0))
    except ValueError:
        return 0


def destination(span: Span) -> str:
    """The topic or queue of a message; empty for a span that is about none."""
    if any(str(span.attributes.get(name, "")).lower() == "true" for name in _TEMPORARY):
        return TEMPORARY  # each has a name of its own
    return first(span, _DESTINATION)


def peer(span: Span) -> str:
    """Who was called, as far as the caller's span tells."""
    return first(span, _PEER)


def group(span: Span) -> str:
    """The consumer group; the service where none is named."""
    return first(span, _GROUP) or span.service


def operation(span: Span) -> str:
    """What is asked for: an operation, a method and a route, an RPC, else the span's name."""
    own = str(span.attributes.get("callcast.operation", ""))
    if own:
        return own
    method, route = first(span, _METHOD), first(span, _ROUTE)
    if method and not route:
        path = first(span, _PATH).partition("?")[0]
        route = _ID.sub("/{id}", path)
    if method and route:
        return f"{method} {route}"
    called = str(span.attributes.get("rpc.method", ""))
    service = str(span.attributes.get("rpc.service", ""))
    return f"{service}/{called}" if called and service else called or span.name


def is_about_messages(span: Span) -> bool:
    """Whether it is about a message at all."""
    return bool(destination(span)) or span.kind in {"producer", "consumer"}


def act(span: Span) -> str:
    """What is done with a message: publish, create, process, receive, ..."""
    return str(
        span.attributes.get("messaging.operation.name")
        or span.attributes.get("messaging.operation.type")
        or span.attributes.get("messaging.operation")
        or ""
    )


def is_publishing(span: Span) -> bool:
    """Whether it sends a message."""
    return span.kind == "producer" or (
        bool(destination(span)) and act(span) in {"publish", "send", "create"}
    )


def is_handling(span: Span) -> bool:
    """Whether it handles a message, and not merely fetches or settles some."""
    return span.kind == "consumer" and act(span) not in _HANDED_OVER


def is_call(span: Span) -> bool:
    """Whether it is an attempt to call somebody, or callcast's span around all attempts."""
    return (span.kind == "client" and not is_about_messages(span)) or is_whole_call(span)


def is_whole_call(span: Span) -> bool:
    """Whether it is callcast's span around all attempts of a call."""
    return span.kind == "internal" and "callcast.peer" in span.attributes


def is_reply(topic: str) -> bool:
    """Whether callcast sends answers there, of requests over a broker."""
    return f"{topic}.".startswith("callcast.replies.")
