"""The frames that there are for each message: of one that is published, of one that is delivered.

pika's codec writes and reads all others, and these too where they are unusual. It makes an object
of each frame, of its method and of its properties, and asks of each value what it is; written and
read in one go they take a quarter of the time. The bytes are the same: a test compares them.

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
from typing import Any, NamedTuple

from msgspec import Struct
from pika import BasicProperties, frame, spec

from callcast.brokers.rabbitmq.tables import Tables, short, written

_frame = struct.Struct(">BHI")  # what stands before a payload
_header = struct.Struct(">BHIHHQ")  # the same and the beginning of a content header
_size = struct.Struct(">I")
_number = struct.Struct(">Q")
_flags = struct.Struct(">H")
_deliver = struct.Struct(">QB")  # of its arguments: tag and flags
_DELIVER = _size.pack(spec.Basic.Deliver.INDEX)
_confirm = struct.Struct(">BHIIQBB")
_ACK = _size.pack(spec.Basic.Ack.INDEX)

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = (METHOD, HEADER, BODY, HEARTBEAT)
END = b"\xce"
AROUND = 8
"""Bytes around a payload."""
_BEFORE = 7
"""Of these, before it."""
_PERSISTENT = b"\x02"
_FLAGS = _flags.pack(
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
        return [_content_type(self.content_type), _size.pack(len(table)), table, _PERSISTENT,
                _number.pack(self.timestamp)]  # fmt: skip


class Place(NamedTuple):
    """Where a message is published."""

    channel: int
    exchange: str
    key: str
    is_mandatory: bool


def published(place: Place, properties: bytes, body: bytes, *, body_max: int) -> bytes:
    """A publish; `body_max`: bytes of a body that one frame may hold."""
    channel, size = place.channel, len(body)
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
    method = spec.Basic.Publish(
        exchange=place.exchange, routing_key=place.key, mandatory=place.is_mandatory
    )
    return frame.Method(place.channel, method).marshal()


@lru_cache(_KEPT)
def _content_type(content_type: str) -> bytes:
    """The flags, and the one value that stands before the headers."""
    return _FLAGS + short(content_type)


# Read


class Came(Struct, gc=False):
    """A delivery; `end` is where its frames end in what was read."""

    tag: int
    is_redelivered: bool
    content_type: str | None
    headers: Mapping[str, Any]
    timestamp: int
    body: bytes
    end: int = 0


def of_pika(method: spec.Basic.Deliver, properties: BasicProperties, body: bytes) -> Came:
    """The same, as pika has read it."""
    return Came(
        method.delivery_tag or 0,
        bool(method.redelivered),
        properties.content_type,
        properties.headers or {},
        properties.timestamp or 0,
        body,
    )


class Incomplete(Exception):
    """More is to be read first."""


def consumer_of(read: bytes, at: int) -> bytes:
    """Whose delivery the frame that begins there starts; empty when it starts none.

    Of one that is cut off it is no consumer at all.
    """
    start = at + _BEFORE + len(_DELIVER) + 1
    is_one = read.startswith(_DELIVER, at + _BEFORE) and read[at] == METHOD
    return read[start : start + read[start - 1]] if is_one and start <= len(read) else b""


class Reader:
    """Reads deliveries; remembers what the tables of earlier ones looked like."""

    def __init__(self) -> None:
        self._tables = Tables()

    def came(self, read: bytes, at: int) -> Came | None:
        """The delivery whose frames begin there, or None when they are to be read one by one.

        Raises `Incomplete`. Others' frames may stand between them, and a body may have several.
        """
        try:
            _, channel, size = _frame.unpack_from(read, at)
            start = at + _BEFORE + len(_DELIVER) + 1
            tag, flags = _deliver.unpack_from(read, start + read[start - 1])
            at += size + AROUND
            kind, its_channel, size, _, _, length = _header.unpack_from(read, at)
            end = stop = at + size + AROUND
            is_usual = kind == HEADER and its_channel == channel
            if length and is_usual:
                kind, its_channel, size = _frame.unpack_from(read, end)
                stop += size + AROUND
                is_usual = kind == BODY and its_channel == channel and size == length
            if is_usual and not read[at - 1] == read[end - 1] == read[stop - 1] == END[0]:
                is_usual = False  # pika says what is wrong with that
        except (struct.error, IndexError) as error:
            raise Incomplete from error
        if not is_usual:
            return None
        content_type, headers, timestamp = self._properties(read, at + _header.size, end - 1)
        body = read[end + _BEFORE : stop - 1] if length else b""
        return Came(tag, bool(flags & 1), content_type, headers, timestamp, body, stop)

    def _properties(
        self, read: bytes, at: int, end: int
    ) -> tuple[str | None, Mapping[str, Any], int]:
        """Content type, headers and timestamp."""
        if read.startswith(_FLAGS, at):
            try:
                return self._usual(read, at + len(_FLAGS))
            except UnicodeDecodeError:
                pass  # pika leaves as bytes what is no text
        properties = BasicProperties()
        properties.decode(read[at:end])
        return properties.content_type, properties.headers or {}, properties.timestamp or 0

    def _usual(self, read: bytes, at: int) -> tuple[str, Mapping[str, Any], int]:
        start = at + 1
        at = start + read[at]
        content_type = read[start:at].decode()
        start = at + _size.size
        at = start + int(_size.unpack_from(read, at)[0])
        headers = self._tables.read(read, start, at)
        return content_type, headers, int(_number.unpack_from(read, at + len(_PERSISTENT))[0])


class Confirm(NamedTuple):
    """The broker has what was published, this one or all up to it."""

    channel: int
    number: int
    is_multiple: bool
    end: int


def confirm(read: bytes, at: int) -> Confirm | None:
    """The confirm whose frame begins there; None when another one does, or not all is here."""
    if not read.startswith(_ACK, at + _BEFORE) or len(read) < at + _confirm.size:
        return None
    kind, channel, _, _, number, flags, end = _confirm.unpack_from(read, at)
    if kind != METHOD or end != END[0]:
        return None
    return Confirm(channel, number, bool(flags & 1), at + _confirm.size)


def end_of(read: bytes, at: int) -> int:
    """Where the frame ends that begins there; what begins like no frame is all that there is."""
    kind, _, size = _frame.unpack_from(read, at)
    return at + size + AROUND if kind in KINDS else len(read)
