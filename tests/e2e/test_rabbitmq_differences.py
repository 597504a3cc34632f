"""What is otherwise on a RabbitMQ is named before anything starts, and left as it is."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import listening, opened, topic

from callcast import Bus, Event, Service
from callcast.core.errors import Misuse
from callcast.policies.recovery import Recovery
from callcast.ports.broker import Source

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("kind", ["direct", "headers"])
async def test_an_exchange_of_another_kind_is_named_with_the_difference(
    theirs: BlockingChannel, rabbitmq_url: str, kind: str
) -> None:
    name = topic()
    theirs.exchange_declare(name, kind, durable=True)
    async with opened(rabbitmq_url) as broker:
        [exchange] = await broker.differences([name], [])
        assert (exchange.name, exchange.is_missing) == (name, False)
        assert f"current is '{kind}'" in exchange.detail
        with pytest.raises(Misuse, match=f"inequivalent arg 'type' .* current is '{kind}'"):
            await broker.ensure([name], [Source(name, "group")])
    theirs.exchange_declare(name, kind, durable=True)  # it is as it was


async def test_a_topic_exchange_that_does_not_outlive_a_restart_is_named(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    name = topic()
    theirs.exchange_declare(name, "topic")
    async with opened(rabbitmq_url) as broker:
        [exchange] = await broker.differences([name], [])
        assert (exchange.name, exchange.is_missing) == (name, False)
        assert "inequivalent arg 'durable'" in exchange.detail
        with pytest.raises(Misuse, match="inequivalent arg 'durable'"):
            await broker.ensure([name], [])


async def test_a_stream_that_is_missing_or_keeps_otherwise_is_named(rabbitmq_url: str) -> None:
    async with opened(rabbitmq_url) as plain:
        source = await listening(plain)
    async with opened(f"{rabbitmq_url}?retain=3600") as hour:
        [missing] = await hour.differences([source.topic], [source])
        assert missing.is_missing
        assert f"stream '{source.topic}/log'" in missing.detail
        await hour.ensure([source.topic], [source])
        assert await hour.differences([source.topic], [source]) == []
    async with opened(f"{rabbitmq_url}?retain=60") as minute:
        [other] = await minute.differences([source.topic], [source])
        assert not other.is_missing
        assert "x-max-age" in other.detail


async def test_a_queue_with_other_arguments_is_named_by_the_command(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    async with opened(rabbitmq_url) as broker:
        source = await listening(broker)
    theirs.queue_delete(f"{source}/dead")
    theirs.queue_declare(f"{source}/dead", durable=True)
    async with opened(rabbitmq_url) as broker:
        [dead] = await broker.differences([source.topic], [source])
    assert (dead.name, dead.is_missing) == (str(source), False)
    assert f"queue '{source}/dead'" in dead.detail
    assert "inequivalent arg 'x-queue-type'" in dead.detail


async def test_retries_that_would_hold_a_key_beyond_what_the_server_waits_are_refused(
    rabbitmq_url: str,
) -> None:
    """It takes a message back after half an hour; without order nothing is held."""
    name = topic()
    slow = Recovery(delays=(700.0, 700.0), jitter=0.0)
    ordered, plain = Service(f"{name}-ordered"), Service(f"{name}-plain")

    @ordered.on(Event(name, str, key=str), recovery=slow)
    async def one(order: str) -> None: ...

    @plain.on(Event(f"{name}.plain", str), recovery=slow)
    async def other(order: str) -> None: ...

    with pytest.raises(Misuse, match=r"may take 23 min 20 s; on rabbitmq .* for 20 min in all"):
        async with Bus(rabbitmq_url, services=[ordered]):
            pass
    async with Bus(rabbitmq_url, services=[plain]):
        pass
    async with Bus("memory://", services=[ordered]):
        pass
