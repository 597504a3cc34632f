"""JSON by msgspec: structs, dataclasses, TypedDict, attrs, builtins, unions, pydantic models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from callcast.codecs.foreign import Foreign, decoded_foreign, plain_foreign
from callcast.codecs.forms import checked_form, name_of
from callcast.core.errors import Misuse, Undecodable

_MISSING = "Object missing required field `"
_UNKNOWN = "Object contains unknown field `"
_AT = " - at `"


class JsonCodec:
    """Implements `ports.codec.Codec`.

    Decoding never imports a name, builds no object of a class that the contract does not mention,
    and recurses no deeper than the interpreter allows (then `Undecodable`). Numbers JSON does not
    have (NaN, infinity) are written as null, as `msgspec` does.
    """

    content_type = "application/json"

    def encoder(self, form: object) -> Callable[[object], bytes]:
        """A function that encodes values of this type; raises `Misuse` for a type it cannot."""
        form = checked_form(form)
        encode = msgspec.json.Encoder(enc_hook=plain_foreign).encode

        def encoded(value: object) -> bytes:
            try:
                return encode(value)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise _unwritable(value, form, error) from error

        return encoded

    def decoder(self, form: object) -> Callable[[bytes], object]:
        """A function that decodes and validates; raises `Undecodable` naming the field."""
        known: Any = checked_form(form)
        decode: Callable[[bytes], object] = msgspec.json.Decoder(
            known, dec_hook=decoded_foreign
        ).decode

        def decoded(body: bytes) -> object:
            try:
                return decode(body)
            except (ValueError, RecursionError) as error:
                raise undecodable(error) from error

        return decoded

    def converter(self, form: object, *, lax: bool = False) -> Callable[[object], object]:
        """A function from plain dicts, lists and scalars to this type; raises `Undecodable`.

        `lax`: text counts as a number, boolean or null where the type wants one (path, query).
        """
        known: Any = checked_form(form)

        def converted(value: object) -> object:
            try:
                made: object = msgspec.convert(
                    value, known, strict=not lax, dec_hook=decoded_foreign
                )
            except (ValueError, RecursionError) as error:
                raise undecodable(error) from error
            return made

        return converted

    def plain(self, value: object) -> object:
        """The value as plain dicts, lists and scalars; raises `Misuse` for one that has no JSON."""
        try:
            made: object = msgspec.to_builtins(value, str_keys=True, enc_hook=plain_foreign)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _unwritable(value, type(value), error) from error
        return made


def undecodable(error: Exception) -> Undecodable:
    """What went wrong and where, without the payload: ``Expected `int`, got `str` `` at a path."""
    if isinstance(error, RecursionError):
        return Undecodable("nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Undecodable("text that is not UTF-8")
    detail, at, path = str(error).partition(_AT)
    field = path.removesuffix("`") if at else "$"
    for start in (_MISSING, _UNKNOWN):
        if detail.startswith(start):
            field = f"{field}.{detail[len(start) :].removesuffix('`')}"
    if isinstance(error.__cause__, Foreign):  # a model inside: msgspec's path, then the model's
        detail, field = error.__cause__.detail, field + error.__cause__.path
    return Undecodable(detail, field=field)


def _unwritable(value: object, form: object, error: Exception) -> Misuse:
    return Misuse(
        f"a value of type {name_of(type(value))} cannot be written as JSON for"
        f" {name_of(form)}: {error}"
    )
