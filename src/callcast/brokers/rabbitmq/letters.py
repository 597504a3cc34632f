"""Messages ready to be written: where they go, what AMQP says about them, their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from callcast.brokers.rabbitmq.frames import Usual
from callcast.core.message import Message


class Properties(Protocol):
    """Of a message: pika's own, or ours, which are those that most have."""

    headers: Any

    def encode(self) -> list[bytes]:
        """As they are written."""
        ...


class Letter(Struct, frozen=True, gc=False):
    """A message ready to be written."""

    exchange: str
    key: str
    id: str
    properties: Properties
    body: bytes
    is_mandatory: bool = True


def letter(
    place: tuple[str, str],
    message: Message,
    table: Mapping[str, Any],
    *,
    published: float,
    is_mandatory: bool = True,
) -> Letter:
    """A persistent message for an exchange and a routing key; `published`: wall-clock seconds."""
    properties = Usual(message.datacontenttype, table, int(published))
    return Letter(place[0], place[1], message.id, properties, message.body, is_mandatory)


def with_headers(one: Letter, more: Mapping[str, Any]) -> Letter:
    """The same, with these headers too."""
    one.properties.headers = {**(one.properties.headers or {}), **more}
    return one
