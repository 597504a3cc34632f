"""A Kafka group that moves partitions, and a process that leaves it, on a cluster in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from confluent_kafka import KafkaError
from kafka_fake import FakeConsumer, install
from kafka_fake_cluster import Cluster
from kafka_group_kit import BILLING, NAMES, OPTIONS, PATIENCE, opened, until

from callcast.brokers.kafka import KafkaBroker
from callcast.core.outcome import DONE
from callcast.runtime.clock import AsyncioClock


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch)


@pytest.fixture
async def broker(cluster: Cluster) -> AsyncGenerator[KafkaBroker]:
    broker = KafkaBroker(OPTIONS, clock=AsyncioClock())
    yield broker
    await broker.close()
    assert cluster.clients == 0


def member(cluster: Cluster) -> FakeConsumer:
    """The driver's consumer in this group."""
    [found] = cluster.members[NAMES.group]
    return found


async def test_what_is_out_of_a_partition_that_moves_is_finished_here(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1", "2")
    [first] = await consumer.fetch(1, PATIENCE)
    member(cluster).revoke(("orders", 0))
    assert member(cluster).positions == {}
    assert await consumer.fetch(10, 0.0) == ()
    assert cluster.committed[NAMES.group]["orders", 0][1].endswith("1o,h1")
    await consumer.settle([(first, DONE)])
    await until(lambda: cluster.committed[NAMES.group]["orders", 0] == (1, ""))


async def test_what_is_done_of_a_partition_that_moves_is_committed_before_its_process_leaves(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1", "2")
    [first] = await consumer.fetch(1, PATIENCE)
    member(cluster).revoke(("orders", 0))
    cluster.refuse("commit", *[KafkaError.REBALANCE_IN_PROGRESS] * 3)
    await consumer.settle([(first, DONE)])
    await consumer.close()
    assert cluster.committed[NAMES.group]["orders", 0] == (1, "")


async def test_the_last_consumer_that_closes_leaves_what_is_done_committed(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1")
    [first] = await consumer.fetch(1, PATIENCE)
    await consumer.settle([(first, DONE)])
    await consumer.close()  # the last one of this process: it leaves the group
    assert cluster.committed[NAMES.group]["orders", 0] == (1, "")


async def test_the_last_consumer_that_closes_while_its_group_goes_on_leaves_nothing_to_repeat(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    """The server has begun the group's next generation, and this process has not heard of it."""
    consumer = await opened(broker, BILLING, "1")
    [first] = await consumer.fetch(1, PATIENCE)
    cluster.refuse("commit", *[KafkaError.ILLEGAL_GENERATION] * 4)
    await consumer.settle([(first, DONE)])
    await consumer.close()
    assert cluster.committed[NAMES.group]["orders", 0] == (1, "")
