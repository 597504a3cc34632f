"""A Kafka partition that moves while a handler has one of its messages."""

from __future__ import annotations

import asyncio

import pytest
from broker_parts import fetched, handled, listening, message
from kafka_ground import Orders, opened, worker
from servers import OwnServer

from callcast.core.outcome import DONE
from callcast.ports.broker import Consumer, Delivery

pytestmark = pytest.mark.timeout(90)

TWO = "session=2&partitions=2"
NAMES = [f"m{number}" for number in range(20)]
MORE = [f"n{number}" for number in range(20)]
QUIET = 3.0


async def drained(consumer: Consumer) -> list[Delivery]:
    """All that comes until nothing comes any more, unsettled."""
    found: list[Delivery] = []
    while batch := await consumer.fetch(100, QUIET):
        found += batch
    return found


async def test_a_slow_handler_whose_partition_moves_holds_up_no_other_partition(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """Its process reads the others on, and nobody gets the one before the handler is through."""
    url = a_kafka_of_its_own.url
    async with opened(url, TWO) as first, opened(url, TWO) as second:
        source = await listening(first, ordered=True)
        await first.publish([message(name, source.topic, key=name) for name in NAMES])
        consumer = await first.consume(source)
        held = await fetched(consumer, len(NAMES))
        newcomer = await second.consume(source)
        await first.publish([message(name, source.topic, key=name) for name in MORE])
        ours, theirs = await asyncio.gather(drained(consumer), drained(newcomer))
        stayed = {one.message.id for one in ours}
        assert stayed, "it read nothing while its handlers had what they had"
        assert theirs == [], "somebody else has begun what is not finished"
        await consumer.settle([(one, DONE) for one in (*held, *ours)])  # none of it is lost
        rest, moved = await asyncio.gather(handled(consumer), handled(newcomer))
        assert rest == []
        assert sorted(moved) == sorted(set(MORE) - stayed)


async def test_who_dies_while_it_finishes_a_partition_that_has_moved_loses_nothing(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """Its heir sees that nothing is heard of it any more, and counts the crash."""
    async with opened(a_kafka_of_its_own.url, TWO) as second:
        source = await listening(second, ordered=True)
        await second.publish([message(name, source.topic, key=name) for name in NAMES])
        async with worker(Orders(a_kafka_of_its_own.url, source, len(NAMES))):
            newcomer = await second.consume(source)
            assert await newcomer.fetch(100, QUIET) == ()
        found = await fetched(newcomer, len(NAMES), within=45.0)
        assert sorted(one.message.id for one in found) == sorted(NAMES)
        assert {one.crashes for one in found} == {1}
