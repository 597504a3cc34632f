"""By which exchanges a message comes to its groups on a RabbitMQ, also where one is there already."""

from __future__ import annotations

import asyncio

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from rabbitmq_parts import handled, listening, message, opened, stranger, topic

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.amqp import SHARES
from callcast.core.errors import Misuse
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(60)
KEYS = [None, *(f"k{number}" for number in range(40))]
"""Some in each lane, and one message without a key."""


async def published(broker: RabbitBroker, to: str) -> list[str]:
    """The ids of messages with all kinds of keys."""
    await broker.publish([message(f"m{n}", to, key=key) for n, key in enumerate(KEYS)])
    return sorted(f"m{n}" for n in range(len(KEYS)))


async def heard(broker: RabbitBroker, source: Source) -> list[str]:
    consumer = await broker.consume(source)
    try:
        return sorted(await handled(consumer))
    finally:
        await consumer.close()


def exists(url: str, exchange: str, kind: str, **arguments: str) -> bool:
    """Whether there is an exchange of that name which is so; nothing is made where there is none."""
    with stranger(url) as channel:
        try:
            channel.exchange_declare(exchange, passive=True)
            channel.exchange_declare(exchange, kind, durable=True, arguments=arguments)
        except ChannelClosedByBroker:
            return False
        return True


@pytest.mark.parametrize("is_ordered", [False, True])
async def test_the_exchange_of_an_event_reads_no_keys(
    theirs: BlockingChannel, rabbitmq_url: str, *, is_ordered: bool
) -> None:
    async with opened(rabbitmq_url) as broker:
        source = await listening(broker, ordered=is_ordered, lanes=16)
        assert exists(rabbitmq_url, source.topic, "fanout")
        mine = str(theirs.queue_declare("", exclusive=True).method.queue)
        theirs.queue_bind(mine, source.topic, "whatever.they.like")
        ids = await published(broker, source.topic)
        assert await heard(broker, source) == ids
        assert theirs.queue_declare(mine, passive=True).method.message_count == len(ids)


@pytest.mark.parametrize("is_ordered", [False, True])
async def test_a_topic_exchange_that_is_there_serves_as_it_is(
    theirs: BlockingChannel, rabbitmq_url: str, *, is_ordered: bool
) -> None:
    source = Source(topic(), "group", ordered=is_ordered, lanes=4)
    theirs.exchange_declare(source.topic, "topic", durable=True)
    async with opened(f"{rabbitmq_url}?retain=60") as broker:
        assert [one.name for one in await broker.differences([], [source])] == [
            source.topic,
            str(source),
        ]  # the log and the group
        await broker.ensure([source.topic], [source])
        ids = await published(broker, source.topic)
        assert await heard(broker, source) == ids
        assert sorted(one.message.id for one in await broker.read(source.topic)) == ids
        assert await broker.differences([source.topic], [source]) == []
    async with opened(f"{rabbitmq_url}?retain=60") as again:
        await again.ensure([source.topic], [source])
    assert exists(rabbitmq_url, source.topic, "topic")


async def test_lanes_that_an_earlier_version_bound_get_each_message_once(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    """It had one exchange for all: the lanes stay bound to it, and are bound to the new one too."""
    source = Source(topic(), "group", ordered=True, lanes=4)
    theirs.exchange_declare(source.topic, "topic", durable=True)
    async with opened(rabbitmq_url) as broker:
        await broker.ensure([source.topic], [source])
        for number, key in enumerate(SHARES):
            theirs.queue_bind(f"{source}/{number % 4}", source.topic, key)
        theirs.queue_bind(f"{source}/0", source.topic, "all")
        ids = await published(broker, source.topic)
        assert await heard(broker, source) == ids


@pytest.mark.parametrize("there", ["", "topic"])
async def test_programs_that_ensure_the_same_at_once_all_succeed(
    theirs: BlockingChannel, rabbitmq_url: str, there: str
) -> None:
    sources = [Source(topic(), "group", ordered=n % 2 > 0, lanes=2) for n in range(6)]
    topics = [source.topic for source in sources]
    for name in topics if there else ():
        theirs.exchange_declare(name, there, durable=True)
    brokers = [RabbitBroker(rabbitmq_url, clock=AsyncioClock()) for _ in range(4)]
    try:
        await asyncio.gather(*(broker.ensure(topics, sources) for broker in brokers))
        assert await brokers[0].differences(topics, sources) == []
        for broker, source in zip(brokers, sources, strict=False):
            ids = await published(broker, source.topic)
            assert await heard(broker, source) == ids
    finally:
        await asyncio.gather(*(broker.close() for broker in brokers))


@pytest.mark.parametrize("there", ["fanout", "topic"])
async def test_what_strangers_publish_under_their_own_keys_is_lost_to_no_ordered_group(
    theirs: BlockingChannel, rabbitmq_url: str, there: str
) -> None:
    """It all goes to one lane, as without a key: only there has it an order."""
    name = topic()
    theirs.exchange_declare(name, there, durable=True)
    async with opened(rabbitmq_url) as broker:
        source = Source(name, "group", ordered=True, lanes=16)
        await broker.ensure([name], [source])
        theirs.confirm_delivery()
        for number, key in enumerate(["order.placed", "", "all", "#", "*", "ff"]):
            headers = {"ce-id": f"m{number}", "ce-source": "/them", "ce-type": "placed"}
            properties = pika.BasicProperties(headers=headers, delivery_mode=2)
            theirs.basic_publish(name, key, b"{}", properties, mandatory=True)
        assert theirs.queue_declare(f"{source}/0", passive=True).method.message_count == 6
        consumer = await broker.consume(source)
        assert await handled(consumer) == [f"m{number}" for number in range(6)]


@pytest.mark.parametrize("part", ["", "/strays"])
async def test_an_exchange_of_an_ordered_group_that_is_gone_is_named_and_made_again(
    theirs: BlockingChannel, rabbitmq_url: str, part: str
) -> None:
    async with opened(rabbitmq_url) as broker:
        source = await listening(broker, ordered=True, lanes=2)
    theirs.exchange_delete(f"{source}{part}")
    async with opened(rabbitmq_url) as broker:
        [found] = await broker.differences([source.topic], [source])
        assert (found.name, found.is_missing) == (str(source), True)
        assert found.detail == f"exchange '{source}{part}' of group {source} is missing"
        assert not exists(rabbitmq_url, f"{source}{part}", "fanout")  # nothing was made
        await broker.ensure([source.topic], [source])
        assert await broker.differences([source.topic], [source]) == []
        ids = await published(broker, source.topic)
        assert await heard(broker, source) == ids
        theirs.confirm_delivery()
        theirs.basic_publish(source.topic, "theirs", b"{}", mandatory=True)


async def test_an_exchange_of_an_ordered_group_that_is_otherwise_is_named(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    async with opened(rabbitmq_url) as broker:
        source = await listening(broker, ordered=True, lanes=2)
    theirs.exchange_delete(str(source))
    theirs.exchange_declare(str(source), "direct", durable=True)  # what strays would be lost
    async with opened(rabbitmq_url) as broker:
        [found] = await broker.differences([source.topic], [source])
        assert (found.name, found.is_missing) == (str(source), False)
        assert f"exchange '{source}' of group {source} is otherwise" in found.detail
        assert "inequivalent arg 'alternate-exchange'" in found.detail
        with pytest.raises(Misuse, match="inequivalent arg 'alternate-exchange'"):
            await broker.ensure([source.topic], [source])


async def test_a_retired_group_leaves_no_exchange_of_its_own(rabbitmq_url: str) -> None:
    async with opened(rabbitmq_url) as broker:
        source = await listening(broker, ordered=True, lanes=2)
        other = Source(source.topic, "other", ordered=True, lanes=2)
        await broker.ensure([source.topic], [source, other])
        await broker.retire(source)
        assert not exists(rabbitmq_url, str(source), "direct")
        assert not exists(rabbitmq_url, f"{source}/strays", "fanout")
        ids = await published(broker, source.topic)
        assert await heard(broker, other) == ids
        assert exists(rabbitmq_url, source.topic, "fanout")
