"""Channels that end under a handler: by a lost connection, or by the server's own patience."""

from __future__ import annotations

import asyncio
import time

import pytest
from rabbitmq_parts import (
    drop_connections,
    fetched,
    handled,
    is_settled,
    listening,
    message,
    opened,
    until,
)
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.errors import Unavailable
from callcast.core.outcome import DONE
from callcast.ports.broker import Part, Unsettled

pytestmark = pytest.mark.timeout(120)


async def test_what_is_handled_over_a_lost_connection_is_handled_once(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """It comes back under another tag, while its handler still runs; the old one is void."""
    source = await listening(broker)
    await broker.publish([message(f"m{number}", source.topic) for number in range(5)])
    consumer = await broker.consume(source)
    held = await fetched(consumer, 3)
    intake = consumer.intake
    before = intake.generation

    def is_back() -> bool:
        """Whether all of it has come again over another channel."""
        now = intake.generation
        return now > before and [one.generation for one in intake.desk.held] == [now] * 5

    assert await until(lambda: drop_connections(a_rabbitmq_of_its_own, "consume"))
    await until(is_back)
    rest = await fetched(consumer, 2)
    assert sorted(one.message.id for one in rest) == ["m3", "m4"]
    await consumer.settle([(one, DONE) for one in (*held, *rest)])
    assert await handled(consumer) == []
    await broker.publish([message("next", source.topic)])
    assert await handled(consumer) == ["next"]
    lag = await broker.lag(source)
    assert (lag.ready, lag.leased) == (0, 0)


async def test_an_ordered_verdict_over_a_lost_connection_is_lost_and_spoils_nothing(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """Its tag would mean another message on the new channel, or end it."""
    source = await listening(broker, ordered=True)
    batch = [message(f"m{number}", source.topic, key=f"k{number}") for number in range(5)]
    await broker.publish(batch)
    consumer = await broker.consume(source)
    old = await fetched(consumer, 5)
    assert await until(lambda: drop_connections(a_rabbitmq_of_its_own, "consume"))
    new = await fetched(consumer, 5)
    with pytest.raises(Unsettled) as told:
        await consumer.settle([(one, DONE) for one in old])
    assert set(told.value.lost) == set(old)
    await consumer.settle([(one, DONE) for one in new])
    assert await handled(consumer) == []


async def test_a_handler_beyond_the_consumer_timeout_runs_once(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """The server closes the channel under it, again and again, and delivers the message anew."""
    for setting in ("consumer_timeout, 1000", "channel_tick_interval, 500"):
        a_rabbitmq_of_its_own.rabbitmqctl("eval", f"application:set_env(rabbit, {setting}).")
    try:
        source = await listening(broker)
        await broker.publish([message("slow", source.topic)])
        consumer = await broker.consume(source)
        [slow] = await fetched(consumer, 1)
        start = time.monotonic()
        while time.monotonic() < start + 6.0:
            consumer.renew([slow])
            try:
                assert await consumer.fetch(1, 0.5) == ()
            except Unavailable:
                await asyncio.sleep(0.1)  # the channel has just gone
        log = a_rabbitmq_of_its_own.log
        assert await until(lambda: b"timed out" in log.read_bytes())
        await until(lambda: is_settled(consumer, slow))
    finally:
        for setting in ("consumer_timeout, 1800000", "channel_tick_interval, 60000"):
            a_rabbitmq_of_its_own.rabbitmqctl("eval", f"application:set_env(rabbit, {setting}).")
    async with opened(a_rabbitmq_of_its_own.url) as second:
        assert await handled(await second.consume(source)) == []
        assert await second.browse(source, part=Part.DEAD) == []
