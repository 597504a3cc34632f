"""Wrong embedded brokers for child processes: each is right while there is one process."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec.structs import replace

from callcast.brokers.sqlite import SqliteBroker
from callcast.brokers.sqlite.consumer import SqliteConsumer
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Broker, Consumer, Delivery, Lag, Part, Source, Start
from callcast.runtime.clock import AsyncioClock

consume = SqliteBroker.consume
ensure = SqliteBroker.ensure
fetch = SqliteConsumer.fetch
lag = SqliteBroker.lag
publish = SqliteBroker.publish


def open_forgetful(path: str) -> Broker:
    """Opens one that forgets with each process how often a message has ended one."""

    async def forgetting(self: SqliteConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        return [replace(each, crashes=0) for each in await fetch(self, limit, wait)]

    SqliteConsumer.fetch = forgetting  # type: ignore[method-assign]
    return _opened(path)


def open_blaming(path: str) -> Broker:
    """Opens one that counts the crash of one message against all that it hands over with it."""

    async def blaming(self: SqliteConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        taken = await fetch(self, limit, wait)
        worst = max((each.crashes for each in taken), default=0)
        return [replace(each, crashes=worst) for each in taken]

    SqliteConsumer.fetch = blaming  # type: ignore[method-assign]
    return _opened(path)


def open_hasty(path: str) -> Broker:
    """Opens one that settles what it hands over before it was handled."""

    async def settling(self: SqliteConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        taken = await fetch(self, limit, wait)
        await settle(self, [(each, DONE) for each in taken])
        return taken

    async def settled(self: SqliteConsumer, verdicts: object) -> None: ...

    settle = SqliteConsumer.settle
    SqliteConsumer.fetch = settling  # type: ignore[method-assign]
    SqliteConsumer.settle = settled  # type: ignore[method-assign]
    return _opened(path)


def open_lonely(path: str) -> Broker:
    """Opens one that takes each process for a group of its own."""

    async def consuming(
        self: SqliteBroker,
        source: Source,
        *,
        part: Part = Part.READY,
        lease: float = 60.0,
        prefetch: int = 250,
    ) -> Consumer:
        own = _own(source)
        await ensure(self, [], [own])
        return await consume(self, own, part=part, lease=lease, prefetch=prefetch)

    async def lagging(self: SqliteBroker, source: Source) -> Lag:
        return await lag(self, _own(source))

    SqliteBroker.consume = consuming  # type: ignore[method-assign,assignment]
    SqliteBroker.lag = lagging  # type: ignore[method-assign]
    return _opened(path)


def open_lazy(path: str) -> Broker:
    """Opens one that confirms what it keeps in memory until the next publish."""
    kept: list[Message] = []

    async def publishing(self: SqliteBroker, messages: Sequence[Message]) -> None:
        await publish(self, kept)
        kept[:] = messages

    SqliteBroker.publish = publishing  # type: ignore[method-assign]
    return _opened(path)


def _own(source: Source) -> Source:
    return replace(source, group=f"{source.group}-{os.getpid()}", start=Start.EARLIEST)


def _opened(path: str) -> Broker:
    return SqliteBroker(path, clock=AsyncioClock())
