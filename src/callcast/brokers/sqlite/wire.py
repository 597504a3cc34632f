"""Messages as they lie in the file: one msgpack array, in the order of `Message`'s fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import msgpack
from msgspec.structs import astuple

from callcast.core.message import NO_HEADERS, Message


class _Stored(Message, frozen=True, array_like=True, gc=False):
    """A message read back; a shorter array of an older version gets the defaults."""


def _as_dict(value: object) -> object:
    if isinstance(value, Mapping):
        return dict[object, object](value)  # pyright: ignore[reportUnknownArgumentType] - encoded next
    raise TypeError(f"a message cannot hold a {type(value).__name__}")


_NOTHING: dict[str, str] = {}
_ENCODER = msgpack.Encoder(enc_hook=_as_dict)
_DECODER = msgpack.Decoder(_Stored)
_NUMBERS = msgpack.Decoder(list[int])
_KEYS = msgpack.Decoder(list[str | None])


def encode(message: Message) -> bytes:
    """The message as bytes, without `unheard`, its last field, which is not sent.

    Raises `TypeError` or `ValueError` for what cannot be stored (a lone surrogate, say).
    """
    *fields, headers, _ = astuple(message)
    fields.append(_NOTHING if headers is NO_HEADERS else headers)  # the hook for others is slow
    return _ENCODER.encode(fields)


def decode(blob: bytes) -> Message:
    """The message that these bytes were made of."""
    return Message(*astuple(_DECODER.decode(blob)))


def encode_list(values: Sequence[int] | Sequence[str | None]) -> bytes:
    """Row numbers or keys of a lease as bytes."""
    return _ENCODER.encode(values)


def decode_numbers(blob: bytes) -> list[int]:
    """The row numbers of a lease."""
    return _NUMBERS.decode(blob)


def decode_keys(blob: bytes) -> list[str | None]:
    """The keys of a lease, one for each of its row numbers."""
    return _KEYS.decode(blob)
