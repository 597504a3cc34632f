"""Header tables as AMQP 0-9-1 has them, for tables of texts; pika's codec serves all other values.

An entry is its name (a byte for its size, then its bytes), a type (`S` for text), the size of the
text in four bytes, and the text.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, cast

from pika import data  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]

_KEPT = 1_024
"""Names and shapes that are remembered; a program has a few dozen."""
_TEXT = ord("S")

_size = struct.Struct(">I")
_values = cast("Any", data)  # the stubs know nothing of it


def written(headers: Mapping[str, Any]) -> bytes:
    """The entries of a table; raises what pika raises for what AMQP cannot express."""
    pieces: list[bytes] = []
    for name, value in headers.items():
        if type(value) is str:
            text = value.encode()
            pieces += (_text_named(name), _size.pack(len(text)), text)
        else:
            pieces.append(short(name))
            _values.encode_value(pieces, value)
    return b"".join(pieces)


def short(text: str) -> bytes:
    """A text of up to 255 bytes, with its size before it; raises what pika raises for others."""
    pieces: list[bytes] = []
    _values.encode_short_string(pieces, text)
    return b"".join(pieces)


class Tables:
    """Reads tables; most have the names of an earlier one, and texts of the same sizes."""

    def __init__(self) -> None:
        self._shapes: dict[int, _Shape] = {}  # the latest, by the size of the table

    def read(self, read: bytes, at: int, end: int) -> dict[str, Any]:
        """The table whose entries stand there; raises `UnicodeDecodeError` for a text that is none.

        pika would leave that one as bytes.
        """
        shape = self._shapes.get(end - at)
        if shape is not None:
            parts = shape.cut.unpack_from(read, at)
            if parts[::2] == shape.between:
                return dict(zip(shape.names, map(bytes.decode, parts[1::2]), strict=True))
        table: dict[str, Any] = {}
        places = [at]  # where it begins, then where each text begins and ends
        others = 0
        while at < end:
            start = at + 1
            at = start + read[at]
            name = _name(read[start:at])
            if read[at] == _TEXT:
                start = at + 5
                at = start + int(_size.unpack_from(read, at + 1)[0])
                table[name] = read[start:at].decode()
                places += (start, at)
            else:
                table[name], next_ = _values.decode_value(read, at)
                at = int(next_)
                others += 1
        if not others and len(places) == 2 * len(table) + 1:  # else a name stands there twice
            self._learn(_shape(read, tuple(table), places), end - places[0])
        return table

    def _learn(self, shape: _Shape, size: int) -> None:
        if len(self._shapes) >= _KEPT:
            self._shapes.clear()
        self._shapes[size] = shape


class _Shape(NamedTuple):
    """Where a table is cut: one with the same bytes between its texts has them at the same places.

    The sizes of the texts are among these bytes.
    """

    names: tuple[str, ...]
    cut: struct.Struct
    between: tuple[bytes, ...]
    """Names, types and sizes; the last one stands behind the last text, and is empty."""


def _shape(read: bytes, names: tuple[str, ...], places: list[int]) -> _Shape:
    places = [*places, places[-1]]
    sizes = [end - start for start, end in pairwise(places)]
    cut = struct.Struct("".join(f"{size}s" for size in sizes))
    return _Shape(names, cut, cut.unpack_from(read, places[0])[::2])


@lru_cache(_KEPT)
def _text_named(name: str) -> bytes:
    return short(name) + b"S"


@lru_cache(_KEPT)
def _name(encoded: bytes) -> str:
    return encoded.decode()
