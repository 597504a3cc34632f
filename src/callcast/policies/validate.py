"""Bytes become a value of the contract's type, once; what is not of it goes no further."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from callcast.core.errors import Misuse
from callcast.core.work import Next, Work

R = TypeVar("R")


class Validate:
    """CONSUME: decodes the bytes of `Work.value`. Raises `Undecodable` naming the field."""

    def __init__(self, decode: Callable[[bytes], object]) -> None:
        self._decode = decode

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work with the value."""
        body = work.value
        if not isinstance(body, bytes):
            raise Misuse(f"{work.name!r}: Validate was given {type(body).__name__}, not bytes")
        return proceed(replace(work, value=self._decode(body)))


class ValidateRequest:
    """SERVE: calls the payload of the arrival, which decodes. Raises `Undecodable`."""

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work with the value."""
        payload = work.value
        if not callable(payload):
            raise Misuse(f"{work.name!r}: ValidateRequest was given no payload to decode")
        value: object = payload()
        return proceed(replace(work, value=value))
