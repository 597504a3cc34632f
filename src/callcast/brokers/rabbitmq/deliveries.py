"""The frames of a delivery, read in one go; most look like an earlier one, and are cut like it.

| frame          | what it has of ours                                                       | cut |
|----------------|---------------------------------------------------------------------------|-----|
| method         | consumer                                                                  | no  |
|                | tag, flags, exchange and routing key                                      | yes |
| content header | size of the body                                                          | yes |
|                | content type; of the table of headers names, types and sizes              | no  |
|                | the texts of these headers, timestamp                                     | yes |
| body           | its size, bytes                                                           | yes |

A delivery whose first two frames have the sizes of an earlier one has in most cases also all that
is not cut, at the same places. Then one look tells so, and what is between is what it says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from pika import BasicProperties, spec

from callcast.brokers.rabbitmq import tables
from callcast.brokers.rabbitmq.frames import (
    AROUND,
    BEFORE,
    BODY,
    END,
    FLAGS,
    HEADER,
    METHOD,
    PERSISTENT,
)

_frame = struct.Struct(">BHI")  # what stands before a payload
_header = struct.Struct(">BHIHHQ")  # the same and the beginning of a content header
_frame_size = struct.Struct(">3xI")
_size = struct.Struct(">I")
_number = struct.Struct(">Q")
_deliver = struct.Struct(">QB")  # of its arguments: tag and flags
_DELIVER = _size.pack(spec.Basic.Deliver.INDEX)
_KEPT = 1_024
"""Cuts that are remembered; a program has a few dozen, unless the sizes of its texts differ."""


class Came(Struct, gc=False):
    """A delivery; `end` is where its frames end in what was read."""

    tag: int
    is_redelivered: bool
    content_type: str | None
    names: tuple[str, ...]
    """Of its headers."""
    values: Sequence[Any]
    """Of these, in the same order."""
    timestamp: int
    body: bytes
    end: int = 0
    is_plain: bool = False
    """All values of its headers are known to be texts."""

    @property
    def headers(self) -> dict[str, Any]:
        """As a table."""
        return dict(zip(self.names, self.values, strict=True))


def of_pika(method: spec.Basic.Deliver, properties: BasicProperties, body: bytes) -> Came:
    """The same, as pika has read it."""
    headers = properties.headers or {}
    return Came(
        method.delivery_tag or 0,
        bool(method.redelivered),
        properties.content_type,
        tuple(headers),
        list(headers.values()),
        properties.timestamp or 0,
        body,
    )


class Incomplete(Exception):
    """More is to be read first."""


def consumer_of(read: bytes, at: int) -> bytes:
    """Whose delivery the frame that begins there starts; empty when it starts none.

    Of one that is cut off it is no consumer at all.
    """
    start = at + BEFORE + len(_DELIVER) + 1
    is_one = read.startswith(_DELIVER, at + BEFORE) and read[at] == METHOD
    return read[start : start + read[start - 1]] if is_one and start <= len(read) else b""


class Reader:
    """Reads deliveries; remembers how earlier ones were cut."""

    def __init__(self) -> None:
        self._cuts: dict[tuple[int, int], Cut] = {}  # by the sizes of the first two frames
        self._misses = 0

    def came(self, read: bytes, at: int) -> Came | None:
        """The delivery whose frames begin there, or None when they are to be read one by one.

        Raises `Incomplete`. Others' frames may stand between them, and a body may have several.
        """
        return self._alike(read, at) or self._other(read, at)

    def _alike(self, read: bytes, at: int) -> Came | None:
        """The same of one that looks like an earlier one, or None."""
        try:
            (method,) = _frame_size.unpack_from(read, at)
            (header,) = _frame_size.unpack_from(read, at + method + AROUND)
            cut = self._cuts.get((method, header))
            if cut is None:
                return None
            parts = cut.whole.unpack_from(read, at)
            if parts[::2] != cut.between:
                return None
            tag, route, size, *texts, timestamp, size_of_frame = parts[1::2]
            start = at + cut.whole.size
            end = start + size
            if size != size_of_frame or read[end] != END[0]:
                return None
            values = [*map(bytes.decode, texts)]
        except (struct.error, IndexError, UnicodeDecodeError):
            return None
        is_redelivered, body = bool(route[0] & 1), read[start:end]
        return Came(tag, is_redelivered, cut.content_type, cut.names, values, timestamp, body,
                    end + 1, is_plain=True)  # fmt: skip

    def _other(self, read: bytes, at: int) -> Came | None:
        """The same of any other."""
        try:
            _, channel, size = _frame.unpack_from(read, at)
            start = at + BEFORE + len(_DELIVER) + 1
            tag, flags = _deliver.unpack_from(read, start + read[start - 1])
            begin, at = at, at + size + AROUND
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
        content_type, headers, timestamp = _properties(read, at + _header.size, end - 1)
        body = read[end + BEFORE : stop - 1] if length else b""
        values = list(headers.values())
        came = Came(tag, bool(flags & 1), content_type, tuple(headers), values, timestamp, body,
                    stop)  # fmt: skip
        if length and read.startswith(FLAGS, at + _header.size):
            self._remember(read, (begin, at, end), came)
        return came

    def _remember(self, read: bytes, places: tuple[int, int, int], came: Came) -> None:
        """Cut others like this one, which is at these places: method, content header, body."""
        self._misses += 1
        if self._misses > _KEPT:
            self._misses = 0
            self._cuts.clear()
        begin, header, body = places
        sizes = (header - begin - AROUND, body - header - AROUND)
        if sizes not in self._cuts and set(map(type, came.values)) == {str}:
            whole = _cut_of(came, read[begin + BEFORE + len(_DELIVER)], sizes[0])
            if begin + whole.size == body + BEFORE:  # else a name stands there twice
                between = whole.unpack_from(read, begin)[::2]
                self._cuts[sizes] = Cut(whole, between, str(came.content_type), came.names)


class Cut(NamedTuple):
    """Where deliveries are cut: their first two frames, and what stands before the body."""

    whole: struct.Struct
    """What is the same in all and what is not, in turn."""
    between: tuple[bytes, ...]
    """What is the same, as it is."""
    content_type: str
    names: tuple[str, ...]
    """Of the headers."""


def _cut_of(came: Came, consumer_size: int, method_size: int) -> struct.Struct:
    before_tag = BEFORE + len(_DELIVER) + 1 + consumer_size
    route = BEFORE + method_size - before_tag - _number.size  # with the flags before it
    content_type = len(FLAGS) + 1 + len(str(came.content_type).encode())
    # Nothing stands between the tag and the flags, which nobody compares: `0s`.
    format_ = f">{before_tag}sQ0s{route}s{len(END) + _header.size - _number.size}sQ"
    before_name = content_type + _size.size
    for name, text in zip(came.names, came.values, strict=True):
        before_text = before_name + 1 + len(name.encode()) + 1 + _size.size
        format_ += f"{before_text}s{len(text.encode())}s"
        before_name = 0
    return struct.Struct(f"{format_}{len(PERSISTENT)}sQ{len(END) + BEFORE - _size.size}sI")


def _properties(read: bytes, at: int, end: int) -> tuple[str | None, Mapping[str, Any], int]:
    """Content type, headers and timestamp."""
    if read.startswith(FLAGS, at):
        try:
            return _usual(read, at + len(FLAGS))
        except UnicodeDecodeError:
            pass  # pika leaves as bytes what is no text
    properties = BasicProperties()
    properties.decode(read[at:end])
    return properties.content_type, properties.headers or {}, properties.timestamp or 0


def _usual(read: bytes, at: int) -> tuple[str, Mapping[str, Any], int]:
    start = at + 1
    at = start + read[at]
    content_type = read[start:at].decode()
    start = at + _size.size
    at = start + int(_size.unpack_from(read, at)[0])
    headers = tables.read(read, start, at)
    return content_type, headers, int(_number.unpack_from(read, at + len(PERSISTENT))[0])
