"""From a contract and a value to a message: ids, correlation, key, times and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from msgspec import Struct

from callcast.core.amqp import TO, Amqp
from callcast.core.context import AMBIENT
from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.message import NO_HEADERS, Message
from callcast.ports.codec import Codec
from callcast.runtime.ports import Ports

REPLY_TO = "callcast-reply-to"
"""Header of a cast that wants an answer: the topic of the event that carries it."""
RESERVED = "callcast-"
"""Prefix of our own headers; a user's own may not start with it."""
HEADERS_MAX_BYTES = 32_768


class Sending(TypedDict, total=False):
    """How a message is sent; every key may be left out."""

    delay: float
    """Deliver no earlier than this many seconds from now."""
    expires: float
    """After this many seconds from now it is dead ("expired") instead of handled."""
    headers: Mapping[str, str]
    """The program's own headers; names that start with ``callcast-`` are refused."""


NO_SENDING: Sending = {}
_SENDING = frozenset(Sending.__annotations__)


class _Route(Struct, frozen=True):
    """What does not change from message to message of one contract."""

    contract: object  # held, so that the id() it is found by stays its own
    name: str
    topic: str
    encode: Callable[[Any], bytes]
    key: Callable[[Any], str] | None = None
    unheard: bool = False
    amqp: Amqp | None = None
    """Where it goes when that is others' exchange."""


class Envelopes:
    """Builds messages for one sender; encodes with a function compiled once per contract."""

    def __init__(self, codec: Codec, source: str, ports: Ports) -> None:
        self.source = source
        self.codec = codec
        self._content_type = codec.content_type
        self._ports = ports
        self._routes: dict[int, _Route] = {}  # by id() of the contract: hashing one is slow

    def event(
        self, event: Event[Any], value: object, id: str = "", *, sending: Sending = NO_SENDING
    ) -> Message:
        """The message that carries this fact; raises `Misuse` for what the codec refuses."""
        return self._message(self._event_route(event), value, id, sending=sending)

    def command(
        self,
        operation: Operation[Any, Any],
        request: object,
        id: str = "",
        *,
        sending: Sending = NO_SENDING,
        own: Mapping[str, str] = NO_HEADERS,
    ) -> Message:
        """The message that casts this operation; `own` are headers of ours, where to answer.

        Raises `Misuse` for an operation that must not be delivered twice.
        """
        if not operation.idempotent and not operation.once:
            raise Misuse(
                f"operation {operation.name!r} is neither idempotent nor once, and delivery is at"
                " least once: declare idempotent=True if repeating it is harmless, or once=True"
                " and let its handler take a Transaction; or call it instead"
            )
        return self._message(
            self._operation_route(operation), request, id, sending=sending, own=own
        )

    def _message(
        self,
        route: _Route,
        value: object,
        id: str,
        *,
        sending: Sending,
        own: Mapping[str, str] = NO_HEADERS,
    ) -> Message:
        ports = self._ports
        id = id or ports.new_id()  # noqa: A001 - the field's word
        now = ports.clock.wall()
        ambient = AMBIENT.get()
        headers, delay, expires = _terms(sending) if sending else (NO_HEADERS, None, None)
        key = None if route.key is None else route.key(value)
        if route.amqp is not None:
            own = {**own, TO: _addressed(route.amqp, key, name=route.name, delay=delay)}
        if own:
            headers = {**headers, **own}
        return Message(
            id,
            self.source,
            route.name,
            route.topic,
            route.encode(value),
            key=key,
            time=now,
            datacontenttype=self._content_type,
            correlation_id=id if ambient is None else ambient.correlation_id,
            causation_id=None if ambient is None else ambient.message_id,
            deliver_at=None if delay is None else now + delay,
            expires=None if expires is None else now + expires,
            headers=headers,
            unheard=route.unheard,
        )

    def _event_route(self, event: Event[Any]) -> _Route:
        route = self._routes.get(id(event))
        if route is None:
            encode = self.codec.encoder(event.type)
            amqp = event.amqp if event.amqp and event.amqp.exchange is not None else None
            route = _Route(event, event.name, event.topic, encode, event.key, event.unheard, amqp)
            self._routes[id(event)] = route
        return route

    def _operation_route(self, operation: Operation[Any, Any]) -> _Route:
        route = self._routes.get(id(operation))
        if route is None:
            encode = self.codec.encoder(operation.request)
            route = _Route(operation, operation.name, operation.topic, encode)
            self._routes[id(operation)] = route
        return route


def _addressed(amqp: Amqp, key: str | None, *, name: str, delay: float | None) -> str:
    """Where among the exchanges of others a message goes."""
    if delay is not None:
        raise Misuse(
            f"event {name!r}: delay= is kept by callcast's consumers, and this one is"
            " published for others: publish it when it is due"
        )
    return amqp.header(key)


def _terms(sending: Sending) -> tuple[Mapping[str, str], float | None, float | None]:
    """Headers, delay and expiry; raises `TypeError` for a keyword that nobody knows."""
    unknown = sending.keys() - _SENDING
    if unknown:
        known = ", ".join(sorted(_SENDING))
        raise TypeError(f"unknown keyword {min(unknown)!r}: a message is sent with {known}")
    headers = _checked(sending["headers"]) if "headers" in sending else NO_HEADERS
    return headers, sending.get("delay"), sending.get("expires")


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The user's own headers, once they are known to be harmless on every broker."""
    size = 0
    for name, value in headers.items():
        if name.lower().startswith(RESERVED) or not name or not name.isascii():
            raise Misuse(
                f"header {name!r}: names are ASCII and do not start with {RESERVED!r},"
                " which is reserved"
            )
        if any(c in "\r\n\0" for c in name + value):
            raise Misuse(f"header {name!r} holds a line break or NUL: headers are single lines")
        size += len(name) + len(value.encode())
    if size > HEADERS_MAX_BYTES:
        raise Misuse(
            f"headers of {size} bytes exceed the limit of {HEADERS_MAX_BYTES}: put data in the body"
        )
    return dict(headers)
