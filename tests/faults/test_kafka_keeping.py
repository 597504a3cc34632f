"""How long Kafka keeps what is published: until every group has passed it, on a real server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from confluent_kafka.cimpl import NewTopic

from callcast.brokers.kafka import KafkaBroker, options_of
from callcast.core.message import Message
from callcast.core.outcome import DONE, Later
from callcast.ports.broker import Consumer as Worker
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(120)

A_WHILE = 90.0
"""Seconds after which workers look again what can go."""


class Leaping(AsyncioClock):
    """Real time, with leaps forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def wall(self) -> float:
        return super().wall() + self.ahead


@pytest.fixture
def clock() -> Leaping:
    return Leaping()


@pytest.fixture
async def broker(kafka_url: str, clock: Leaping) -> AsyncGenerator[KafkaBroker]:
    options = options_of(f"{kafka_url}?partitions=2&retain=60", {})
    broker = KafkaBroker(options, clock=clock)
    yield broker
    await broker.close()


def topic() -> str:
    return f"keeping.t{secrets.token_hex(4)}"


async def published(broker: KafkaBroker, where: str, *names: str) -> None:
    await broker.publish(
        [
            Message(id=name, source="test", type=where, topic=where, body=name.encode())
            for name in names
        ]
    )


async def handled(worker: Worker) -> list[str]:
    done: list[str] = []
    while batch := await worker.fetch(100, 0):
        await worker.settle([(one, DONE) for one in batch])
        done += [one.message.id for one in batch]
    return sorted(done)


async def look(worker: Worker, clock: Leaping) -> None:
    """Let so much time pass that it deletes what can go."""
    await clock.sleep(0.2)  # until what was settled is committed
    clock.ahead += A_WHILE
    assert await worker.fetch(1, 0) == ()


async def test_what_waits_for_a_group_that_is_down_outlives_the_time_that_events_are_kept(
    broker: KafkaBroker, clock: Leaping
) -> None:
    where = topic()
    quick, down = Source(where, "quick"), Source(where, "down")
    await broker.ensure([], [quick, down])
    await published(broker, where, "a", "b", "c")
    worker = await broker.consume(quick)
    assert await handled(worker) == ["a", "b", "c"]
    await look(worker, clock)
    late = await broker.consume(down)
    assert await handled(late) == ["a", "b", "c"]


async def test_what_all_groups_have_passed_goes_when_it_is_old_enough(
    broker: KafkaBroker, clock: Leaping
) -> None:
    where = topic()
    source = Source(where, "only")
    await broker.ensure([], [source])
    await published(broker, where, "a", "b", "c")
    worker = await broker.consume(source)
    assert await handled(worker) == ["a", "b", "c"]
    assert len(await broker.read(where)) == 3
    await look(worker, clock)
    assert list(await broker.read(where)) == []
    await published(broker, where, "d")
    assert await handled(worker) == ["d"]


async def test_what_was_put_off_and_handled_leaves_nothing_behind(
    broker: KafkaBroker, clock: Leaping, kafka_url: str
) -> None:
    where = topic()
    source = Source(where, "only")
    await broker.ensure([], [source])
    await published(broker, where, "a")
    worker = await broker.consume(source)
    [one] = await worker.fetch(1, 5.0)
    await worker.settle([(one, Later(0.1))])
    [again] = await worker.fetch(1, 5.0)
    await worker.settle([(again, DONE)])
    assert stored(kafka_url, f"{where}.only.retry.10s") == 1
    await look(worker, clock)
    assert stored(kafka_url, f"{where}.only.retry.10s") == 0


async def test_a_topic_that_others_made_is_kept_as_they_say(
    broker: KafkaBroker, clock: Leaping, kafka_url: str
) -> None:
    where = topic()
    admin = AdminClient({"bootstrap.servers": kafka_url.removeprefix("kafka://")})
    settings = {"retention.ms": "86400000"}
    admin.create_topics([NewTopic(where, 1, 1, config=settings)])[where].result()
    source = Source(where, "only")
    await broker.ensure([], [source])
    await published(broker, where, "a")
    worker = await broker.consume(source)
    assert await handled(worker) == ["a"]
    await look(worker, clock)
    assert len(await broker.read(where)) == 1
    assert kept_for(kafka_url, where) == "86400000"


async def test_without_a_group_a_topic_is_kept_for_the_time_that_events_are_kept(
    broker: KafkaBroker, clock: Leaping, kafka_url: str
) -> None:
    where = topic()
    source = Source(where, "only")

    async def until_kept_for(millis: str) -> None:
        async with asyncio.timeout(10):  # a server hears of a change a moment later
            while kept_for(kafka_url, where) != millis:
                await clock.sleep(0.05)

    await broker.ensure([where], [])
    await until_kept_for("60000")
    await broker.ensure([where], [source])
    await until_kept_for("-1")
    await broker.retire(source)
    await until_kept_for("60000")


def stored(kafka_url: str, where: str) -> int:
    """How many records a topic of two partitions holds."""
    servers = kafka_url.removeprefix("kafka://")
    consumer = Consumer({"bootstrap.servers": servers, "group.id": secrets.token_hex(4)})
    try:
        spans = [consumer.get_watermark_offsets(TopicPartition(where, n), 5.0) for n in range(2)]
    finally:
        consumer.close()
    return sum(high - low for low, high in (span or (0, 0) for span in spans))


def kept_for(kafka_url: str, where: str) -> str | None:
    """What the server says of a topic's retention, in milliseconds."""
    admin = AdminClient({"bootstrap.servers": kafka_url.removeprefix("kafka://")})
    asked = ConfigResource(ConfigResource.Type.TOPIC, where)
    found: Mapping[str, object] = admin.describe_configs([asked])[asked].result()
    value = getattr(found["retention.ms"], "value", None)
    return None if value is None else str(value)
