"""CONSUME: a message of a type that its queue does not carry goes straight to the dead letters."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from callcast.core.errors import Undecodable
from callcast.core.work import Next, Work

R = TypeVar("R")


class Known:
    """Raises `Undecodable` for a message that is not of the contract's type.

    Decoding it would be worse than refusing it: two types may have the same fields.
    """

    def __init__(self, type_: str) -> None:
        self._type = type_

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work, if it is this contract's."""
        message = work.message
        if message is not None and message.type != self._type:
            raise Undecodable(f"unknown type {message.type!r}: this queue carries {self._type!r}")
        return proceed(work)
