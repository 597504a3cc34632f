"""What AMQP says about a message must fit into one frame, or the server ends the connection.

A message of others may fill a frame, and its copy says more than it did: how often it was tried,
why it is dead. What is too much is left out of the copy, and named in it. The body stays as it is.
"""

from __future__ import annotations

from typing import Any

from pika import BasicProperties
from pika.exceptions import AMQPError

from callcast.brokers.rabbitmq.letters import Letter, Properties

HEADERS_MAX_BYTES = 130_000
"""Of all properties of a message; a frame has 131,072 bytes."""
LEFT_OUT = "callcast-headers-left-out"
"""The header that names what a copy lacks."""
NAMES_MAX = 500
"""Characters of it; and of what cannot be left out, when that alone is too much."""
_FIRST = ("callcast-error-stack", "callcast-error-message")
_NEEDED = ("ce-specversion", "ce-id", "ce-source", "ce-type")


class TooWide(AMQPError):
    """It would not fit; nothing of it was written."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"its headers have {size} bytes, the limit is {HEADERS_MAX_BYTES}: put data in the body"
        )


def fitted(letter: Letter) -> Letter:
    """The same with what fits of its headers: first goes our own stack, then what is largest."""
    properties = letter.properties
    size = _size(properties)
    if size <= HEADERS_MAX_BYTES:
        return letter
    headers: dict[Any, Any] = dict(properties.headers or {})
    sizes = {name: _size(BasicProperties(headers={name: headers[name]})) for name in headers}
    over = size + len(LEFT_OUT) + NAMES_MAX * 4 - HEADERS_MAX_BYTES
    left_out: list[str] = []
    for name in sorted(sizes, key=lambda one: (one not in _FIRST, -sizes[one])):
        if over > 0 and name not in _NEEDED:
            del headers[name]
            left_out.append(str(name))
            over -= sizes[name]
    if over > 0:
        headers = {name: _cut(value) for name, value in headers.items()}
    properties.headers = {**headers, LEFT_OUT: ", ".join(left_out)[:NAMES_MAX]}
    return letter


def _size(properties: Properties) -> int:
    return sum(map(len, properties.encode()))


def _cut(value: Any) -> Any:
    return value[:NAMES_MAX] if isinstance(value, str | bytes) else value
