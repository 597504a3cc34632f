"""Header tables as AMQP 0-9-1 has them, for tables of texts; pika's codec serves all other values.

An entry is its name (a byte for its size, then its bytes), a type (`S` for text), the size of the
text in four bytes, and the text.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from pika import data  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]

_KEPT = 1_024
"""Names and forms that are remembered; a program has a few dozen."""
_TEXT = ord("S")

_size = struct.Struct(">I")
_values = cast("Any", data)  # the stubs know nothing of it


def written(headers: Mapping[str, Any]) -> bytes:
    """The entries of a table; raises what pika raises for what AMQP cannot express."""
    try:
        texts = tuple(map(str.encode, headers.values()))
    except TypeError:  # there is more than texts
        return _written_by_pika(headers)
    return _form(tuple(headers), tuple(map(len, texts))) % texts


@lru_cache(_KEPT)
def _form(names: tuple[str, ...], sizes: tuple[int, ...]) -> bytes:
    """The entries of a table of texts of these sizes, to be filled in."""
    entries = zip(names, sizes, strict=True)
    return b"".join(
        (short(name) + b"S" + _size.pack(size)).replace(b"%", b"%%") + b"%b"
        for name, size in entries
    )


def _written_by_pika(headers: Mapping[str, Any]) -> bytes:
    pieces: list[bytes] = []
    for name, value in headers.items():
        pieces.append(short(name))
        _values.encode_value(pieces, value)
    return b"".join(pieces)


def short(text: str) -> bytes:
    """A text of up to 255 bytes, with its size before it; raises what pika raises for others."""
    pieces: list[bytes] = []
    _values.encode_short_string(pieces, text)
    return b"".join(pieces)


def read(read: bytes, at: int, end: int) -> dict[str, Any]:
    """The table whose entries stand there; raises `UnicodeDecodeError` for a text that is none.

    pika would leave that one as bytes.
    """
    table: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + read[at]
        name = _name(read[start:at])
        if read[at] == _TEXT:
            start = at + 5
            at = start + int(_size.unpack_from(read, at + 1)[0])
            table[name] = read[start:at].decode()
        else:
            table[name], next_ = _values.decode_value(read, at)
            at = int(next_)
    return table


@lru_cache(_KEPT)
def _name(encoded: bytes) -> str:
    return encoded.decode()
