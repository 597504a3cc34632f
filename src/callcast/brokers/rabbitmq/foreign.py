"""Messages and queues that callcast did not make: read, copied and written as others have them.

| of a message in a bound queue | what a handler sees                                              |
|-------------------------------|------------------------------------------------------------------|
| id                            | property ``message_id``, if it has one                           |
| type                          | the contract's, whatever it says                                 |
| source                        | ``amqp:`` and the queue, unless it is a CloudEvent               |
| time, correlation id          | properties ``timestamp`` and ``correlation_id``                  |
| headers                       | all of them, as text                                             |

A copy of it (put off, suspected, dead) has its properties and headers as they were, and ours
beside them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace
from pika import BasicProperties

from callcast.brokers.rabbitmq import wire
from callcast.brokers.rabbitmq.letters import Letter
from callcast.brokers.rabbitmq.wire import Arrived, Frame, Raw, Way
from callcast.core.amqp import Address
from callcast.core.message import Message
from callcast.ports.broker import Source

OURS = "callcast-"
KEPT = (
    *("content_type", "content_encoding", "priority", "correlation_id", "reply_to"),
    *("message_id", "timestamp", "type", "app_id"),
)
"""Properties that a copy has too: not the sender's user, which is checked against ours, and no
expiration, which would be early."""
_ARGUMENT = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for queue .*"
    r" but current is (?:the value )?'(?P<value>[^']*)'(?: of type '(?P<type>[^']*)')?",
    re.DOTALL,
)


def read(source: Source, frames: tuple[Any, BasicProperties, bytes]) -> Arrived:
    """The message of a delivery, whoever wrote it."""
    method, properties, body = frames
    headers = properties.headers or {}
    frame = Frame(source.topic, properties.content_type, float(properties.timestamp or 0))
    arrived = wire.read(headers, body, frame)
    bound = source.bound
    if bound is None:
        return arrived
    message = arrived.message
    return replace(
        arrived,
        message=replace(
            message,
            id=message.id or properties.message_id or "",
            source=message.source or f"amqp:{bound.queue}",
            type=bound.type,
            time=message.time or frame.timestamp,
            correlation_id=message.correlation_id or properties.correlation_id,
        ),
        raw=Raw(str(method.exchange or ""), str(method.routing_key or ""), properties),
        is_uncounted=bool(method.redelivered) and wire.DELIVERY_COUNT not in headers,
    )


def copy(place: tuple[str, str], message: Message, way: Way, *, raw: Raw) -> Letter:
    """What others wrote, once more, with our notes beside theirs."""
    old = raw.properties
    assert isinstance(old, BasicProperties)  # noqa: S101 - as it came
    table: dict[str, Any] = {
        name: value
        for name, value in (old.headers or {}).items()
        if not name.startswith(OURS) and name not in wire.BROKERS and name != wire.DELIVERY_COUNT
    }
    table |= {name: text for name, text in message.headers.items() if name.startswith(OURS)}
    wire.add_way(table, way)
    kept = {name: getattr(old, name) for name in KEPT}
    kept["message_id"] = message.id or kept["message_id"]
    properties = BasicProperties(headers=table, delivery_mode=2, **kept)
    return Letter(place[0], place[1], message.id, properties, message.body)


def named(message: Message) -> Message:
    """The message, by a name of its own if it has none: dead letters are told apart by it."""
    return message if message.id else replace(message, id=secrets.token_hex(16))


def plain(message: Message, to: Address, wall: float) -> Letter:
    """A message for those who know nothing of callcast: its bytes, and AMQP's own properties."""
    own = {
        name: value
        for name, value in message.headers.items()
        if not name.startswith(OURS) and name not in wire.BROKERS
    }
    traces = (("traceparent", message.traceparent), ("tracestate", message.tracestate))
    own |= {name: text for name, text in traces if text is not None}
    expiration = None if message.expires is None else f"{max(0, message.expires - wall) * 1e3:.0f}"
    properties = BasicProperties(
        content_type=message.datacontenttype,
        headers=own or None,
        delivery_mode=2,
        correlation_id=message.correlation_id,
        expiration=expiration,
        message_id=message.id,
        timestamp=int(message.time or wall),
        type=message.type,
        app_id=message.source,
    )
    return Letter(
        to.exchange,
        to.routing_key,
        message.id,
        properties,
        message.body,
        is_mandatory=not message.unheard,
    )


class Argument(NamedTuple):
    """What a queue was declared with, as the broker names it."""

    name: str
    value: str | int


def argument_in(text: str) -> Argument | None:
    """The argument that the broker says a queue has, when it refuses one without; else None."""
    found = _ARGUMENT.search(text)
    if found is None:
        return None
    value = found["value"]
    is_number = found["type"] not in {None, "longstr"} and value.lstrip("-").isdecimal()
    return Argument(found["name"], int(value) if is_number else value)


def risk(arguments: Mapping[str, str | int]) -> str:
    """Why RabbitMQ would lose messages of such a queue by itself; empty when it would not.

    The limit of deliveries cannot be read over AMQP, and since RabbitMQ 4.0 every quorum queue has
    one: what is beyond it is dropped where there is no dead-letter exchange.
    """
    if arguments.get("x-queue-type", "classic") != "quorum":
        return ""
    if "x-dead-letter-exchange" not in arguments:
        return (
            "shows no dead-letter exchange, so that RabbitMQ may drop what came back too often:"
            " give it one, or say may_drop=True if a policy does or a loss is meant"
        )
    is_safe = arguments.get("x-dead-letter-strategy") == "at-least-once"
    if is_safe and arguments.get("x-overflow") != "reject-publish":
        return (
            "has x-dead-letter-strategy=at-least-once without x-overflow=reject-publish, which"
            " RabbitMQ silently carries out as at-most-once: mend it, or say may_drop=True"
        )
    return ""


def unusable(arguments: Mapping[str, str | int]) -> str:
    """Why such a queue cannot be consumed at all; empty when it can."""
    if arguments.get("x-queue-type") == "stream":
        return "is a stream, which keeps what was handled: bind a queue to its exchange instead"
    return ""
