"""How far a member on Kafka reads ahead of its workers, on a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from kafka_fake import FakeConsumer, install
from kafka_fake_cluster import Cluster

from callcast.brokers.kafka import KafkaBroker, Options, member, share
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Consumer, Source
from callcast.runtime.clock import AsyncioClock

BILLING = Source("orders", "billing")
COUNT = 2_000
PATIENCE = 5.0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many partitions were paused each time."""
    seen: list[int] = []
    pause = FakeConsumer.pause

    def noted(self: FakeConsumer, parts: list) -> None:
        seen.append(len(parts))
        pause(self, parts)

    monkeypatch.setattr(FakeConsumer, "pause", noted)
    return seen


@pytest.fixture
async def consumer(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Consumer]:
    cluster: Cluster = install(monkeypatch)
    monkeypatch.setattr(share, "ENOUGH", share.BATCH)
    monkeypatch.setattr(share, "OPEN_MAX", 3 * share.BATCH)
    broker = KafkaBroker(Options(servers="one:9092", partitions=1), clock=AsyncioClock())
    await broker.ensure(["orders"], [BILLING])
    await broker.publish(
        [Message(str(at), "tests", "orders", "orders", b"1") for at in range(COUNT)]
    )
    yield await broker.consume(BILLING)
    await broker.close()
    assert cluster.clients == 0


async def use_up(consumer: Consumer) -> list[str]:
    seen: list[str] = []
    while len(seen) < COUNT:
        taken = await consumer.fetch(100, PATIENCE)
        await consumer.settle([(one, DONE) for one in taken])
        seen += [one.message.id for one in taken]
    return seen


async def test_a_partition_that_is_used_up_quickly_is_never_paused(
    monkeypatch: pytest.MonkeyPatch, pauses: list[int], consumer: Consumer
) -> None:
    monkeypatch.setattr(member, "REST", 60.0)
    assert await use_up(consumer) == [str(at) for at in range(COUNT)]
    assert pauses == []


async def test_a_partition_that_nobody_uses_up_is_paused_and_nothing_of_it_is_missed(
    monkeypatch: pytest.MonkeyPatch, pauses: list[int], consumer: Consumer
) -> None:
    monkeypatch.setattr(member, "REST", 0.0)
    async with asyncio.timeout(PATIENCE):
        while not pauses:
            await asyncio.sleep(0.001)
    assert await use_up(consumer) == [str(at) for at in range(COUNT)]
