"""The frames that there are for each message: of one that is published, and of its confirm.

Those of one that is delivered stand in `deliveries`. pika's codec writes and reads all others, and
these too where they are unusual. It makes an object of each frame, of its method and of its
properties, and asks of each value what it is; written and read in one go they take a quarter of
the time. The bytes are the same: a test compares them.

| frame          | type | payload                                                                 |
|----------------|------|-------------------------------------------------------------------------|
| method         | 1    | class and method (two bytes each), arguments                            |
| content header | 2    | class, weight (0), size of the body, flags, the properties of the flags |
| body           | 3    | bytes                                                                   |

Each has its type, channel and size before its payload, and `END` behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct
from pika import BasicProperties, frame, spec

from callcast.brokers.rabbitmq.tables import short, written

_frame = struct.Struct(">BHI")  # what stands before a payload
_header = struct.Struct(">BHIHHQ")  # the same and the beginning of a content header
_size = struct.Struct(">I")
_number = struct.Struct(">Q")
_flags = struct.Struct(">H")
_confirm = struct.Struct(">BHIIQBB")
_ACK = _size.pack(spec.Basic.Ack.INDEX)

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = (METHOD, HEADER, BODY, HEARTBEAT)
END = b"\xce"
AROUND = 8
"""Bytes around a payload."""
BEFORE = 7
"""Of these, before it."""
PERSISTENT = b"\x02"
FLAGS = _flags.pack(
    BasicProperties.FLAG_CONTENT_TYPE
    | BasicProperties.FLAG_HEADERS
    | BasicProperties.FLAG_DELIVERY_MODE
    | BasicProperties.FLAG_TIMESTAMP
)
"""What our own messages have."""
_KEPT = 1_024
"""Names and routes whose bytes are kept; a program has a few dozen."""
_BASIC = BasicProperties.INDEX


# Written


class Usual(Struct):
    """The properties of a persistent message, as `pika.BasicProperties` encodes them."""

    content_type: str
    headers: Mapping[str, Any]
    timestamp: int

    def encode(self) -> list[bytes]:
        """Flags and values; raises what pika raises for what AMQP cannot express."""
        table = written(self.headers)
        return [_content_type(self.content_type), _size.pack(len(table)), table, PERSISTENT,
                _number.pack(self.timestamp)]  # fmt: skip


Place: TypeAlias = tuple[int, str, str, bool]
"""Where a message is published: channel, exchange, routing key; whether it must find a queue."""


def published(place: Place, properties: bytes, body: bytes, *, body_max: int) -> bytes:
    """A publish; `body_max`: bytes of a body that one frame may hold."""
    channel, size = place[0], len(body)
    length = 12 + len(properties)
    pieces = [
        _publish(place),
        _header.pack(HEADER, channel, length, _BASIC, 0, size),
        properties,
        END,
    ]
    for start in range(0, size, body_max):
        part = body[start : start + body_max]
        pieces += (_frame.pack(BODY, channel, len(part)), part, END)
    return b"".join(pieces)


@lru_cache(_KEPT)
def _publish(place: Place) -> bytes:
    channel, exchange, key, is_mandatory = place
    method = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=is_mandatory)
    return frame.Method(channel, method).marshal()


@lru_cache(_KEPT)
def _content_type(content_type: str) -> bytes:
    """The flags, and the one value that stands before the headers."""
    return FLAGS + short(content_type)


# Read


class Confirm(NamedTuple):
    """The broker has what was published, this one or all up to it."""

    channel: int
    number: int
    is_multiple: bool
    end: int


def confirm(read: bytes, at: int) -> Confirm | None:
    """The confirm whose frame begins there; None when another one does, or not all is here."""
    if not read.startswith(_ACK, at + BEFORE) or len(read) < at + _confirm.size:
        return None
    kind, channel, _, _, number, flags, end = _confirm.unpack_from(read, at)
    if kind != METHOD or end != END[0]:
        return None
    return Confirm(channel, number, bool(flags & 1), at + _confirm.size)


def end_of(read: bytes, at: int) -> int:
    """Where the frame ends that begins there; what begins like no frame is all that there is."""
    kind, _, size = _frame.unpack_from(read, at)
    return at + size + AROUND if kind in KINDS else len(read)
