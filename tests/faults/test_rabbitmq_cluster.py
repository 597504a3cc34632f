"""Three RabbitMQs, of which the one that leads a queue is killed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import quote, urlsplit

import pytest
from rabbitmq_parts import fetched, handled, listening, message, opened
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.errors import Unpublished
from callcast.core.outcome import DONE
from callcast.ports.broker import Source, Unsettled

pytestmark = pytest.mark.timeout(120)


def leader_of(cluster: OwnRabbitMq, source: Source) -> str:
    """The node that leads the queue of a group: "1", "2" or "3"."""
    path = f"queues/{quote(cluster.vhost, safe='')}/{quote(str(source), safe='')}"
    queue = cluster.manage("GET", path)
    assert isinstance(queue, dict)
    assert len(queue["members"]) == 3
    port = str(queue["leader"]).partition("@")[0].rpartition("-")[2]
    ports = [str(urlsplit(one).port) for one in cluster.url.split(",")]
    return str(ports.index(port) + 1)


async def test_the_death_of_a_leader_loses_no_confirmed_message(
    three_rabbitmqs: OwnRabbitMq,
) -> None:
    """The connection of callcast is to the first node, which leads what was declared over it."""
    async with opened(three_rabbitmqs.url) as broker:
        source = await listening(broker)
        names = [f"m{number}" for number in range(200)]
        await broker.publish([message(name, source.topic) for name in names[:100]])
        consumer = await broker.consume(source)
        held = await fetched(consumer, 10)
        await asyncio.to_thread(three_rabbitmqs.kill, leader_of(three_rabbitmqs, source))
        seen: set[str] = set()
        with suppress(Unsettled):  # then they come again
            await consumer.settle([(one, DONE) for one in held])
        for name in names[100:]:
            await published(broker, name, source)
        while not seen >= set(names) - {one.message.id for one in held}:
            batch = await fetched(consumer, 1)
            seen |= {one.message.id for one in batch}
            await consumer.settle([(one, DONE) for one in batch])
        seen |= set(await handled(consumer))
        assert seen | {one.message.id for one in held} == set(names)


async def published(broker: RabbitBroker, name: str, source: Source) -> None:
    """Publish until it is confirmed; what was not confirmed is sent again under its id."""
    for _ in range(200):
        try:
            await broker.publish([message(name, source.topic)])
        except Unpublished:
            await asyncio.sleep(0.1)
        else:
            return
    pytest.fail(f"{name} was not confirmed")
