"""Bytes become a value of the contract's type, once; what is not of it goes no further."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from callcast.core.errors import Misuse, Undecodable
from callcast.core.work import Next, Work

R = TypeVar("R")


class Validate:
    """CONSUME: decodes the bytes of `Work.value`. Raises `Undecodable` naming the field.

    A message of another type than the contract's is refused before that: two types may have the
    same fields, and decoding the wrong one would be worse than refusing it.
    """

    def __init__(self, type_: str, decode: Callable[[bytes], object]) -> None:
        self._type = type_
        self._decode = decode

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work with the value."""
        message = work.message
        if message is not None and message.type != self._type:
            raise Undecodable(f"unknown type {message.type!r}: this queue carries {self._type!r}")
        body = work.value
        if not isinstance(body, bytes):
            raise Misuse(f"{work.name!r}: Validate was given {type(body).__name__}, not bytes")
        return proceed(replace(work, value=self._decode(body)))


class ValidateRequest:
    """SERVE: calls the payload of the arrival, which decodes. Raises `WrongRequest`."""

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work with the value."""
        payload = work.value
        if not callable(payload):
            raise Misuse(f"{work.name!r}: ValidateRequest was given no payload to decode")
        value: object = payload()
        return proceed(replace(work, value=value))
