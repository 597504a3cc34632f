"""Parts for tests of the outbox: rows put in, a feed of them, what state they are in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from transaction_parts import PACKED, PLACED, Bench

from callcast.ports.broker import Delivery, Source
from callcast.runtime.outbox_consumer import OutboxConsumer, OutboxSettings
from callcast.runtime.outbox_feed import OutboxFeed

SOURCE = Source("callcast.outbox", "shop")
QUICK = OutboxSettings(poll=0.005, poll_max=0.02, gap=0.0)
STEADY = OutboxSettings(gap=0.0)


async def put(b: Bench, *values: str) -> None:
    """Publish; what has a colon is keyed by what stands before it."""
    async with b.units.open() as tx:
        for value in values:
            await tx.publish(PLACED if ":" in value else PACKED, value, id=value)


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


@asynccontextmanager
async def open_feed(
    b: Bench, settings: OutboxSettings = QUICK
) -> AsyncIterator[tuple[OutboxFeed, OutboxConsumer]]:
    feed = OutboxFeed(b.units, ports=b.ports, tasks=b.tasks, settings=settings)
    consumer = await feed.consume(SOURCE)
    yield feed, consumer
    await consumer.close()


async def state(b: Bench) -> dict[object, object]:
    rows = await b.database.read("select message_id, state from callcast_outbox")
    return {row[0]: row[1] for row in rows}
