"""Parts for tests of any one broker: names of their own, and what is waited for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from callcast.core.errors import Unavailable
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Broker, Consumer, Delivery, Source

T = TypeVar("T")

PATIENCE = 25.0
"""Seconds for what must happen soon."""
LOOK = 0.05
"""Seconds between two looks."""


def topic() -> str:
    """A name of its own."""
    return f"t{secrets.token_hex(4)}"


def message(name: str, to: str, *, key: str | None = None, body: bytes = b'"x"') -> Message:
    """A message with that id for that topic."""
    return Message(name, "tests", to, to, body, key)


async def listening(broker: Broker, *, ordered: bool = False, lanes: int = 1) -> Source:
    """A new group of a new topic."""
    source = Source(topic(), "group", ordered=ordered, lanes=lanes)
    await broker.ensure([source.topic], [source])
    return source


async def fetched(consumer: Consumer, count: int, *, within: float = PATIENCE) -> list[Delivery]:
    """So many deliveries, unsettled; the broker may be away meanwhile."""
    found: list[Delivery] = []
    end = time.monotonic() + within
    while len(found) < count:
        left = end - time.monotonic()
        assert left > 0, f"{len(found)} of {count} came within {within:g} s"
        try:
            found += await consumer.fetch(count - len(found), left)
        except Unavailable:
            await asyncio.sleep(LOOK)  # it comes back by itself
    return found


async def handled(consumer: Consumer, *, quiet: float = 1.0) -> list[str]:
    """The ids of all that comes until nothing comes any more, settled as done.

    A broker that is away does not count as quiet.
    """
    ids: list[str] = []
    while True:
        try:
            batch = await consumer.fetch(500, quiet)
        except Unavailable:
            await asyncio.sleep(LOOK)
            continue
        if not batch:
            return ids
        ids += [one.message.id for one in batch]
        await consumer.settle([(one, DONE) for one in batch])


async def until(what: Callable[[], Awaitable[T] | T], *, within: float = PATIENCE) -> T:
    """Wait until this is true, and return it."""
    end = time.monotonic() + within
    while True:
        answer = what()
        found = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        assert time.monotonic() < end, f"it was not so within {within:g} s"
        await asyncio.sleep(LOOK)
