"""Where a group of Kafka goes on: after a crash, a retention, a new partition, a subscription."""

from __future__ import annotations

import asyncio

import pytest
from broker_parts import fetched, handled, listening, message, topic
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    NewPartitions,  # pyright: ignore[reportPrivateImportUsage] - documented so
)
from kafka_ground import Orders, asked, away, configuration, crashed, opened, write
from servers import OwnServer

from callcast import Bus, Operation, Service
from callcast.brokers.kafka.options import Options
from callcast.core.errors import Misuse
from callcast.core.outcome import DONE
from callcast.ports.broker import Source, Start

pytestmark = pytest.mark.timeout(90)

ONE = "session=2&partitions=1"


async def test_what_was_not_done_comes_again_after_a_crash_and_what_was_does_not(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """Handlers that run side by side end out of order; a committed offset has no gaps."""
    url = a_kafka_of_its_own.url
    names = [f"m{number}" for number in range(10)]
    done = ("m1", "m4", "m7", "m8")
    async with opened(url, ONE) as broker:
        source = await listening(broker)
        await broker.publish([message(name, source.topic) for name in names])
        await crashed(Orders(url, source, 10, done))
        consumer = await broker.consume(source)
        rest = [one for one in names if one not in done]
        found: list[str] = []
        while len(found) < len(rest):  # suspects come one at a time
            batch = await fetched(consumer, 1)
            assert {one.crashes for one in batch} == {1}
            found += [one.message.id for one in batch]
            await consumer.settle([(one, DONE) for one in batch])
        assert sorted(found) == sorted(rest)
        assert await handled(consumer) == []


async def test_crashes_are_counted_over_kills_and_their_neighbours_are_spared(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """The count is in the metadata of the committed offset: no process remembers it."""
    url = a_kafka_of_its_own.url
    async with opened(url, ONE) as broker:
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        for _ in range(2):
            await crashed(Orders(url, source, 1))
        await broker.publish([message("neighbour", source.topic)])
        consumer = await broker.consume(source)
        [neighbour] = await fetched(consumer, 1)
        assert (neighbour.message.id, neighbour.crashes) == ("neighbour", 0)
        await consumer.settle([(neighbour, DONE)])
        [suspect] = await fetched(consumer, 1)
        assert (suspect.message.id, suspect.crashes) == ("m", 2)


async def test_a_new_group_has_a_position_in_every_partition_before_anybody_consumes(
    a_kafka_of_its_own: OwnServer,
) -> None:
    async with opened(a_kafka_of_its_own.url, "partitions=4") as broker:
        first = await listening(broker)
        names = [f"m{number}" for number in range(40)]
        await broker.publish([message(name, first.topic) for name in names])
        second = Source(first.topic, "second")
        earliest = Source(first.topic, "earliest", start=Start.EARLIEST)
        await broker.ensure([], [second, earliest])
        await broker.publish([message("later", first.topic)])
        assert await handled(await broker.consume(second)) == ["later"]
        for source in (first, earliest):
            found = await handled(await broker.consume(source))
            assert sorted(found) == sorted([*names, "later"])


class Attentive(Options):
    """Looks for new partitions each second; by default it is each half minute."""

    @property
    def member(self) -> dict[str, str | int | float]:
        return {**super().member, "topic.metadata.refresh.interval.ms": 1_000}


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_partition_that_is_added_later_is_heard_from_its_beginning(
    a_kafka_of_its_own: OwnServer, *, is_there: bool
) -> None:
    """Under `latest` all that is published before the group notices would be lost."""
    url = a_kafka_of_its_own.url
    async with opened(url, ONE, Attentive) as broker:
        source = await listening(broker)
        await broker.publish([message("before", source.topic)])
        consumer = await broker.consume(source)
        assert await handled(consumer) == ["before"]
        if not is_there:
            await consumer.close()
        await asked(url, lambda admin: admin.create_partitions([NewPartitions(source.topic, 2)]))
        bodies = [str(number).encode() for number in range(100)]
        await away(write, url, source.topic, [(body, body, []) for body in bodies])
        if not is_there:
            consumer = await broker.consume(source)
        found = await fetched(consumer, 100)
        assert {one.message.body for one in found} == set(bodies)
        assert len({one.message.id.rpartition("/")[0] for one in found}) == 2


@pytest.mark.parametrize("ordered", [True, False])
async def test_messages_that_are_gone_are_an_error_that_says_what_to_do(
    a_kafka_of_its_own: OwnServer, *, ordered: bool
) -> None:
    """Not a jump to the end, nor to the beginning, that nobody is told of."""
    url = a_kafka_of_its_own.url
    async with opened(url, ONE) as broker:
        source = await listening(broker, ordered=ordered)
        await broker.publish([message(f"m{number}", source.topic) for number in range(10)])
        await asked(url, lambda admin: admin.delete_records([TopicPartition(source.topic, 0, 6)]))
        consumer = await broker.consume(source)
        for _ in range(2):  # nor is it told only once
            with pytest.raises(Misuse, match="expired=earliest") as told:
                await fetched(consumer, 1)
            assert source.topic in str(told.value)
            assert "retention" in str(told.value)
    async with opened(url, f"{ONE}&expired=earliest") as broker:
        consumer = await broker.consume(source)
        assert await handled(consumer) == ["m6", "m7", "m8", "m9"]
        lag = await broker.lag(source)
        assert (lag.ready, lag.leased, lag.delayed) == (0, 0, 0)


async def test_a_cast_waits_for_as_long_as_its_service_is_away(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """An event is kept for a week; a service may be down for a month."""
    url = f"{a_kafka_of_its_own.url}?{ONE}"
    name = topic()
    work = Operation(f"{name}.do", request=str, response=None, idempotent=True)
    async with Bus(url, name="caster") as bus:
        await bus.cast(work, "it")
    found = await configuration(a_kafka_of_its_own.url, work.topic)
    assert found["retention.ms"] == "-1"
    service = Service(name)
    seen: list[str] = []

    @service.serves(work)
    async def do(what: str) -> None:
        seen.append(what)

    async with Bus(url, services=[service]) as bus:
        await bus.idle()
    assert seen == ["it"]


async def test_what_is_in_the_way_of_a_group_that_is_half_made_is_made_when_it_is_ensured_again(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """A process that dies between making topics and positions leaves them to the next one."""
    url = a_kafka_of_its_own.url
    name = topic()
    async with opened(url, ONE) as broker:
        await broker.ensure([name], [])
        await broker.publish([message("kept", name)])
    async with opened(url, ONE) as broker:
        source = Source(name, "group")
        await asyncio.gather(*(broker.ensure([name], [source]) for _ in range(3)))
        assert await handled(await broker.consume(source)) == ["kept"]
