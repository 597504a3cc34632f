"""A frame with a time that the driver cannot read: beyond the year 9999, as milliseconds are.

Other clients write such times into the headers of messages, and the server takes them. The driver
raises where it reads one, which ends the connection; the message comes again over the next one, and
ends that too. Read as plain numbers they do no harm: both take eight bytes, so that only the letter
of the type is another one.
"""

from __future__ import annotations

import struct

from callcast.brokers.rabbitmq.wire import LAST

_SIZES = {
    **dict.fromkeys((b"t", b"b", b"B"), 1),
    **dict.fromkeys((b"U", b"u", b"s"), 2),
    **dict.fromkeys((b"I", b"i", b"f"), 4),
    **dict.fromkeys((b"L", b"l", b"d", b"T"), 8),
    b"D": 5,
    b"V": 0,
}
"""Bytes of a value, by the letter of its type; of the others their length comes first."""
_START = 7
"""Bytes before what a frame holds."""
_FIXED = 12
"""Bytes of a header frame before its properties: class, weight and the size of the body."""
_HAS_HEADERS = 0x2000
_TEXTS_BEFORE = (0x8000, 0x4000)
"""Flags of the properties that stand before the headers: type and encoding of the content."""
_GOES_ON = 0x0001
"""There are more flags."""


def as_numbers(frame: bytes) -> bytes:
    """The header frame that these bytes start with, its impossible times as numbers."""
    mended = bytearray(frame)
    at = _START + _FIXED
    (flags,) = struct.unpack_from(">H", mended, at)
    at += 2
    last = flags
    while last & _GOES_ON:
        (last,) = struct.unpack_from(">H", mended, at)
        at += 2
    for flag in _TEXTS_BEFORE:
        if flags & flag:
            at += 1 + mended[at]
    if flags & _HAS_HEADERS:
        _mend_table(mended, at)
    return bytes(mended)


def _mend_table(mended: bytearray, at: int) -> int:
    """Where it ends."""
    (size,) = struct.unpack_from(">I", mended, at)
    at += 4
    end = at + size
    while at < end:
        at = _mend_value(mended, at + 1 + mended[at])  # behind its name
    return at


def _mend_value(mended: bytearray, at: int) -> int:
    kind = bytes(mended[at : at + 1])
    at += 1
    if kind == b"F":
        return _mend_table(mended, at)
    if kind == b"T" and struct.unpack_from(">Q", mended, at)[0] > LAST:
        mended[at - 1 : at] = b"l"
    if kind in _SIZES:
        return at + _SIZES[kind]
    (size,) = struct.unpack_from(">I", mended, at)
    at += 4
    end: int = at + size
    while kind == b"A" and at < end:
        at = _mend_value(mended, at)
    return end
