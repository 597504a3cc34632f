"""Kafkas that die under load: a node of three, whose others go on, and one that is alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from broker_parts import fetched, listening, message
from broker_run import ORDERED, PLAIN, SILENCE, Run, noticing, until
from confluent_kafka import TopicCollection
from kafka_ground import SOON, Orders, asked, configuration, opened, worker
from servers import OwnServer

from callcast.core.errors import CallcastError
from callcast.core.outcome import DONE, Dead
from callcast.ports.broker import Part, Source

PRODUCERS = 20
PAUSE = 0.01
CONSUMERS = 2
ROUND = 500
"""Messages that show that all goes on."""
ELECTED = 60.0
"""Seconds in which the others have noticed, and lead, and clients have found them."""
RECOVERED = 30.0
"""Seconds in which all works again once a lone server is back."""

HARMS = [("kill", "restart", ORDERED), ("kill", "restart", PLAIN), ("freeze", "thaw", ORDERED)]


async def leader(url: str, topic: str) -> str:
    """The node that leads the first partition: "1", "2" or "3"."""
    [found] = await asked(url, lambda admin: admin.describe_topics(TopicCollection([topic])))
    return str(found.partitions[0].leader.id)


@pytest.mark.battery
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("hurt", "heal", "order"), HARMS)
async def test_the_leader_of_three_is_gone_and_the_others_go_on(
    three_kafkas: OwnServer, tmp_path: Path, order: str, hurt: str, heal: str
) -> None:
    server = three_kafkas
    run = Run(noticing(SILENCE, server.url), tmp_path, order=order)
    await run.prepare()
    assert (await configuration(server.url, run.topic))["min.insync.replicas"] == "2"
    async with run.producers() as producers, run.consumers(CONSUMERS):
        async with run.load(producers, PRODUCERS, PAUSE):
            await run.goes_on(producers, ROUND)
            node = await leader(server.url, run.topic)
            await asyncio.to_thread(getattr(server, hurt), node)
            await run.goes_on(producers, ROUND, ELECTED)
            await asyncio.to_thread(getattr(server, heal), node)
            await run.goes_on(producers, ROUND, ELECTED)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)


@pytest.mark.battery
@pytest.mark.timeout(240)
async def test_while_two_of_three_are_gone_nothing_is_acknowledged_and_then_all_goes_on(
    three_kafkas: OwnServer, tmp_path: Path
) -> None:
    """What one node alone has is not safe: `min.insync.replicas` is two."""
    server = three_kafkas
    run = Run(noticing(SILENCE, server.url), tmp_path)
    await run.prepare()
    async with run.producers() as producers, run.consumers(CONSUMERS):
        async with run.load(producers, PRODUCERS, PAUSE):
            await run.goes_on(producers, ROUND)
            led = await leader(server.url, run.topic)
            other = next(each for each in "123" if each != led)
            await asyncio.to_thread(server.kill, led)
            await asyncio.to_thread(server.kill, other)
            await asyncio.sleep(5.0)
            acknowledged = producers.acknowledged
            await asyncio.sleep(5.0)
            assert producers.acknowledged == acknowledged
            await asyncio.to_thread(server.restart, other)
            await run.goes_on(producers, ROUND, ELECTED)
            await asyncio.to_thread(server.restart, led)
            await run.goes_on(producers, ROUND, ELECTED)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)


@pytest.mark.timeout(120)
async def test_after_a_killed_server_is_back_all_that_was_open_works_again(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """It comes back with another epoch of leadership, which must not be an error for ever."""
    async with opened(a_kafka_of_its_own.url, SOON) as broker:
        source = await listening(broker)
        consumer = await broker.consume(source)
        await broker.publish([message(f"m{number}", source.topic) for number in range(10)])
        first = await fetched(consumer, 10)
        await consumer.settle([(one, Dead("no")) for one in first[:5]])
        assert len(await broker.browse(source, part=Part.DEAD)) == 5
        assert (await broker.lag(source)).dead == 5
        await asyncio.to_thread(a_kafka_of_its_own.kill)
        await asyncio.to_thread(a_kafka_of_its_own.restart)
        began = time.monotonic()

        async def is_well() -> bool:
            try:
                await broker.publish([message("after", source.topic)])
                assert len(await broker.browse(source, part=Part.DEAD)) == 5
                return (await broker.lag(source)).dead == 5
            except CallcastError:
                return False

        while not await is_well():
            assert time.monotonic() < began + RECOVERED
            await asyncio.sleep(0.2)
        seen: set[str] = set()
        while "after" not in seen or len(seen) < 6:  # what was out comes again, too
            assert time.monotonic() < began + RECOVERED
            try:
                batch = await consumer.fetch(10, 1.0)
                await consumer.settle([(one, DONE) for one in batch])
            except CallcastError:
                continue
            seen |= {one.message.id for one in batch}
        assert seen == {*(one.message.id for one in first[5:]), "after"}
        await nothing_is_left(broker, source)


@pytest.mark.battery
@pytest.mark.timeout(180)
async def test_a_process_that_asks_how_far_its_group_is_outlives_the_groups_coordinator(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """The driver's administrator does not: told that the coordinator has moved, it ends the process
    with a segmentation fault (`list_consumer_group_offsets`, librdkafka issue 5040)."""
    url = a_kafka_of_its_own.url
    async with opened(url) as broker:
        sources = [await listening(broker) for _ in range(4)]  # each with a coordinator of its own
    async with AsyncExitStack() as stack:
        askers = [
            await stack.enter_async_context(worker(Orders(url, source, 0, asks=True)))
            for source in sources
        ]
        for _ in range(2):
            await asyncio.to_thread(a_kafka_of_its_own.kill)
            await asyncio.to_thread(a_kafka_of_its_own.restart)
        for asker in askers:
            asker.terminate()
        async with asyncio.timeout(RECOVERED):
            assert [await asker.wait() for asker in askers] == [0] * len(askers)


async def nothing_is_left(broker: object, source: Source) -> None:
    async def is_so() -> bool:
        lag = await broker.lag(source)  # type: ignore[attr-defined]
        return not lag.ready + lag.leased + lag.delayed

    deadline = time.monotonic() + RECOVERED
    while not await is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


__all__ = ["until"]
