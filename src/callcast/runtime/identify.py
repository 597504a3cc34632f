"""Ids of messages that no callcast wrote: where the binding says that they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from callcast.core.amqp import id_of
from callcast.core.errors import Undecodable
from callcast.core.message import Message
from callcast.core.work import Next, Work
from callcast.policies.notes import summary

R = TypeVar("R")


class Identify:
    """CONSUME: gives work and message the id by which everything inside knows them."""

    def __init__(self, identify: str | Callable[[Message], str]) -> None:
        self._identify = identify

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work under that id; raises `Undecodable` when it cannot be found."""
        message = work.message
        if message is None:
            return proceed(work)
        try:
            id_ = id_of(self._identify, message)
        except Exception as error:
            raise Undecodable(f"identify= found no id: {summary(error)}") from error
        return proceed(replace(work, id=id_, message=replace(message, id=id_)))
