"""What RabbitMQ 4.3 does otherwise, against a server of its habits over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from amqp_fake import FakeRabbit, fake_rabbitmq
from rabbitmq_parts import fetched, handled, is_settled, listening, message, opened, until

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.outcome import DEAD_REASON, DONE, Dead, Later
from callcast.ports.broker import Part

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def at_4_3() -> AsyncGenerator[tuple[RabbitBroker, FakeRabbit]]:
    async with fake_rabbitmq() as server, opened(server.url) as broker:
        yield broker, server


async def test_the_fake_handles_a_message() -> None:
    async with at_4_3() as (broker, server):
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        assert await handled(await broker.consume(source), quiet=0.3) == ["m"]
        assert not server.queues[str(source)].waiting


async def test_a_failing_handler_ends_in_the_dead_letters() -> None:
    """`nack` would never raise the broker's count there, and go on for ever."""
    async with at_4_3() as (broker, server):
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        consumer = await broker.consume(source)
        for round_ in range(3):
            [one] = await fetched(consumer, 1)
            assert one.round == round_
            await consumer.settle([(one, Later(0.1))])
        [one] = await fetched(consumer, 1)
        await consumer.settle([(one, Dead("four rounds"))])
        [letter] = await broker.browse(source, part=Part.DEAD)
        assert letter.message.headers[DEAD_REASON] == "four rounds"
        assert not server.queues[str(source)].waiting


async def test_a_hung_handler_is_counted_there_too() -> None:
    """What goes back when its lease ends is rejected: that counts on every version."""
    async with at_4_3() as (broker, server):
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        consumer = await broker.consume(source, lease=0.3)
        assert [one.crashes for one in await fetched(consumer, 1)] == [0]
        assert [one.crashes for one in await fetched(consumer, 1)] == [1]
        assert [one.crashes for one in await fetched(consumer, 1)] == [2]
        assert server.returns.count("reject") == 2


async def test_what_goes_back_in_good_order_forgives_no_later_crash() -> None:
    async with at_4_3() as (broker, server):
        source = await listening(broker)
        await broker.publish([message("m", source.topic)])
        for _ in range(2):
            consumer = await broker.consume(source)
            assert [one.crashes for one in await fetched(consumer, 1)] == [0]
            await consumer.close()
        consumer = await broker.consume(source, lease=0.3)
        assert [one.crashes for one in await fetched(consumer, 1)] == [0]
        assert [one.crashes for one in await fetched(consumer, 1)] == [1]
        assert not server.queues[f"{source}/dead"].waiting


async def test_a_consumer_that_the_server_cancels_comes_back_and_runs_nothing_twice() -> None:
    """The consumer timeout: not the end of the channel, but of the subscription alone."""
    async with at_4_3() as (broker, server):
        source = await listening(broker)
        await broker.publish([message("slow", source.topic)])
        consumer = await broker.consume(source)
        [slow] = await fetched(consumer, 1)
        assert server.time_out(str(source)) == 1
        await broker.publish([message("next", source.topic)])
        [other] = await fetched(consumer, 1)
        assert other.message.id == "next"
        await consumer.settle([(other, DONE)])
        await until(lambda: is_settled(consumer, slow))
        assert await handled(consumer, quiet=0.3) == []


async def test_no_queue_is_declared_that_is_refused_there() -> None:
    async with at_4_3() as (broker, server):
        source = await listening(broker, ordered=True, lanes=4)
        await listening(broker)
        await broker.lag(source)
        await broker.browse(source, part=Part.DEAD)
        assert server.refused == []
        assert len(server.queues) > 30
