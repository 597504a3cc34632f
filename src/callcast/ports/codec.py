"""Values to bytes and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Codec(Protocol):
    """Compiles a type once into a pair of functions."""

    @property
    def content_type(self) -> str:
        """The media type of the bytes."""
        ...

    def encoder(self, form: object) -> Callable[[object], bytes]:
        """A function that encodes values of this type; raises `Misuse` for a type it cannot."""
        ...

    def decoder(self, form: object) -> Callable[[bytes], object]:
        """A function that decodes and validates; raises `Undecodable` naming the field."""
        ...

    def converter(self, form: object, *, lax: bool = False) -> Callable[[object], object]:
        """A function from plain dicts, lists and scalars to this type; raises `Undecodable`.

        `lax`: text counts as a number, boolean or null where the type wants one (path, query).
        """
        ...

    def plain(self, value: object) -> object:
        """The value as plain dicts, lists and scalars."""
        ...
