"""What is otherwise on a RabbitMQ is named before anything starts, and left as it is."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import listening, opened, topic

from callcast.core.errors import Misuse
from callcast.ports.broker import Source

pytestmark = pytest.mark.timeout(60)


async def test_an_exchange_of_another_kind_is_named_with_the_difference(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    name = topic()
    theirs.exchange_declare(name, "fanout", durable=True)
    async with opened(rabbitmq_url) as broker:
        [exchange] = await broker.differences([name], [])
        assert (exchange.name, exchange.is_missing) == (name, False)
        assert "inequivalent arg 'type'" in exchange.detail
        with pytest.raises(Misuse, match="inequivalent arg 'type'"):
            await broker.ensure([name], [Source(name, "group")])
    theirs.exchange_declare(name, "fanout", durable=True)  # it is as it was


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
