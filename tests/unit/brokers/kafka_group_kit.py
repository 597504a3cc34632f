"""One group of Kafka on a cluster in memory: its messages, its consumers, what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from callcast.brokers.kafka import KafkaBroker, Options
from callcast.brokers.kafka.names import names_of
from callcast.core.message import Message
from callcast.ports.broker import Consumer, Source

BILLING = Source("orders", "billing")
NAMES = names_of(BILLING)
OPTIONS = Options(servers="one:9092", partitions=1, retain=60.0)
PATIENCE = 3.0


def message(name: str, key: str | None = None) -> Message:
    """An order."""
    return Message(name, "tests", "orders", "orders", b'"x"', key)


async def opened(broker: KafkaBroker, source: Source = BILLING, *names: str) -> Consumer:
    """A consumer of a new group, and these messages, all of one key."""
    await broker.ensure([source.topic], [source])
    await broker.publish([message(name, "a") for name in names])
    return await broker.consume(source)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.01)
