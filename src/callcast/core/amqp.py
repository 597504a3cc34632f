"""How an event is bound to what others have made on a RabbitMQ: exchange, queue, dead letters."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Struct

from callcast.core.errors import Misuse
from callcast.core.message import Message

TO = "callcast-to"
"""Header of a message for an exchange of others; it stays with the message in an outbox."""
PROPERTY = "message_id"
KEY = "{key}"
"""In a routing key: the key of the event."""
SHARES = "0123456789abcdef"
"""The routing keys of messages with a key: a sixteenth of the hashes of all keys each."""
KEYLESS = "all"
"""The routing key of a message without a key."""


class Bound(Struct, frozen=True):
    """Where a group's messages come from when others made it. Durable facts, a part of a source."""

    queue: str
    type: str
    """The contract's name: what its messages are, whatever they say themselves."""
    dead_letter_exchange: str = ""
    may_drop: bool = False


class Address(NamedTuple):
    """An exchange and a routing key."""

    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Amqp:
    """An event on an exchange or a queue that callcast did not make and leaves as it is.

    What is published goes to `exchange` under `routing_key` as plain bytes with AMQP's own
    properties, for consumers that know nothing of callcast. What is consumed comes from `queue`,
    from producers that know nothing of it either. Other brokers than RabbitMQ know no such
    things, and carry the event like any other.
    """

    exchange: str | None = None
    """Where to publish; ``""`` is AMQP's default exchange, whose routing keys are queues."""
    routing_key: str = ""
    """``{key}`` in it stands for the event's key."""
    queue: str = ""
    """Where to consume from, in one group."""
    dead_letter_exchange: str = ""
    """Where dead letters go, under the routing key that they came by, confirmed before the
    original is acknowledged. Without one they go to a queue of callcast's own."""
    identify: str | Callable[[Message], str] = ""
    """Where the id of a message is, by which a `Transaction` knows it again: ``"message_id"`` (the
    property), the name of a header, or a function. Without it a message has its property's id,
    where it has one, and a handler that takes a `Transaction` is `Misuse`."""
    may_drop: bool = False
    """The queue is a quorum queue that shows no dead-letter exchange: RabbitMQ itself may drop a
    message that came back too often, and that is known."""

    def check(self, event: str, *, has_key: bool) -> None:
        """Raise `Misuse` for what cannot be."""
        if self.exchange is None and not self.queue:
            raise Misuse(f"event {event!r}: Amqp() names neither an exchange nor a queue")
        if self.queue and has_key:
            raise Misuse(
                f"event {event!r}: key= keeps an order that the queue {self.queue!r}, which others"
                " made, does not have: leave key= out"
            )
        if KEY in self.routing_key and not has_key:
            raise Misuse(
                f"event {event!r}: routing_key={self.routing_key!r} wants a key: give it key="
            )
        if self.exchange == "" and not self.routing_key:
            raise Misuse(f"event {event!r}: the default exchange wants a routing_key=, a queue")

    def bound(self, type_: str) -> Bound | None:
        """What is to be known of the queue; None without one."""
        if not self.queue:
            return None
        return Bound(self.queue, type_, self.dead_letter_exchange, self.may_drop)

    def header(self, key: str | None) -> str:
        """The value of the header `TO`."""
        return json.dumps([self.exchange, self.routing_key.replace(KEY, key or "")])


def address_of(headers: Mapping[str, str]) -> Address | None:
    """Where a message goes that is for others; None for one that is not."""
    text = headers.get(TO)
    if text is None:
        return None
    exchange, routing_key = json.loads(text)
    return Address(str(exchange), str(routing_key))


def share_of(key: str | None) -> str:
    """``all`` without a key, else which sixteenth of all keys it is in: ``0`` to ``f``."""
    if key is None:
        return KEYLESS
    return SHARES[zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(SHARES)]


def id_of(identify: str | Callable[[Message], str], message: Message) -> str:
    """The id of a message that others wrote; empty when it has none."""
    if callable(identify):
        return identify(message)
    if identify in {"", PROPERTY}:
        return message.id
    return message.headers.get(identify, "")
