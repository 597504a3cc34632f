"""Members of a Kafka group that come, go, stand still, or take their time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from broker_parts import fetched, handled, listening, message, until
from broker_run import DEATH, PLAIN, Run, noticing
from kafka_ground import opened
from servers import OwnServer

from callcast.brokers.kafka.options import Options
from callcast.core.outcome import DONE

pytestmark = pytest.mark.timeout(90)

TWO = "session=2&partitions=2"
PRODUCERS = 10
PAUSE = 0.02
STILL = 5.0
"""Seconds that a process stands still, more than twice as long as its group waits for it."""


class Hurried(Options):
    """The group turns out who has not polled for three seconds; by default it is five minutes."""

    @property
    def member(self) -> dict[str, str | int | float]:
        return {**super().member, "max.poll.interval.ms": 3_000}


@pytest.mark.parametrize("is_loop_blocked", [True, pytest.param(False, marks=pytest.mark.battery)])
async def test_a_handler_that_takes_longer_than_the_group_waits_for_a_poll_keeps_its_message(
    a_kafka_of_its_own: OwnServer, *, is_loop_blocked: bool
) -> None:
    url = a_kafka_of_its_own.url
    async with opened(url, TWO, Hurried) as slow, opened(url, TWO, Hurried) as other:
        source = await listening(slow)
        await slow.publish([message("m", source.topic, key="k")])
        consumer, second = await asyncio.gather(slow.consume(source), other.consume(source))
        took = {one: await one.fetch(1, 5.0) for one in (consumer, second)}
        [(owner, [held])] = [(one, found) for one, found in took.items() if found]
        began = time.monotonic()
        if is_loop_blocked:
            time.sleep(5.0)
        while time.monotonic() - began < 6.0:
            for one in (consumer, second):
                assert await one.fetch(1, 0.5) == ()
        await owner.settle([(held, DONE)])
        await slow.publish([message("next", source.topic, key="k")])
        found = [await one.fetch(1, 3.0) for one in (owner,)]
        assert [one.message.id for batch in found for one in batch] == ["next"]


async def test_a_partition_that_moves_is_finished_by_who_has_it_and_comes_to_nobody_twice(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """Finished and committed before it is let go: the newcomer has nothing of it again."""
    url = a_kafka_of_its_own.url
    names = [f"m{number}" for number in range(20)]
    async with opened(url, TWO) as first:
        source = await listening(first)
        await first.publish([message(name, source.topic, key=name) for name in names])
        consumer = await first.consume(source)
        held = await fetched(consumer, 20)
        async with opened(url, TWO) as second:
            newcomer = await second.consume(source)
            assert await newcomer.fetch(1, 1.0) == ()
            await consumer.settle([(one, DONE) for one in held])  # nothing of it is lost
            more = [f"n{number}" for number in range(20)]
            await first.publish([message(name, source.topic, key=name) for name in more])
            theirs: list[str] = []
            await until(lambda: _has_share(newcomer, theirs))
            rest, others = await asyncio.gather(handled(consumer), handled(newcomer))
            assert sorted([*theirs, *rest, *others]) == sorted(more)


async def _has_share(consumer: object, seen: list[str]) -> bool:
    batch = await consumer.fetch(100, 0.2)  # type: ignore[attr-defined]
    seen += [one.message.id for one in batch]
    await consumer.settle([(one, DONE) for one in batch])  # type: ignore[attr-defined]
    return bool(seen)


async def test_a_consumer_that_stood_still_until_its_group_went_on_consumes_again(
    a_kafka_of_its_own: OwnServer, tmp_path: Path
) -> None:
    """Its commits come too late and are refused; it is not the end of it."""
    run = Run(noticing(DEATH, a_kafka_of_its_own.url), tmp_path, order=PLAIN)
    await run.prepare()
    async with run.producers() as producers, run.consumers(2) as consumers:
        async with run.load(producers, PRODUCERS, PAUSE):
            await run.goes_on(producers, 100)
            consumers[0].freeze()
            await asyncio.sleep(STILL)
            consumers[0].thaw()
            await run.goes_on(producers, 100)
            await consumers[1].stop()  # now it is the only one
            del consumers[1]
            await run.goes_on(producers, 200)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert producers.failures == 0


async def test_a_restart_of_a_static_member_moves_nothing(a_kafka_of_its_own: OwnServer) -> None:
    url = a_kafka_of_its_own.url
    names = [f"m{number}" for number in range(40)]
    options = "session=10&partitions=4&instance={}"
    async with opened(url, options.format("b")) as staying:
        source = await listening(staying)
        async with opened(url, options.format("a")) as leaving:
            both = await asyncio.gather(staying.consume(source), leaving.consume(source))
            await staying.publish([message(name, source.topic, key=name) for name in names])
            shares = [set(found) for found in await asyncio.gather(*map(handled, both))]
            assert all(shares)
            assert shares[0] | shares[1] == set(names)
        again = [message(f"{name}-again", source.topic, key=name) for name in names]
        await staying.publish(again)
        ours = await handled(both[0])
        assert {name.removesuffix("-again") for name in ours} == shares[0]
        async with opened(url, options.format("a")) as back:
            theirs = await handled(await back.consume(source), quiet=3.0)
        assert {name.removesuffix("-again") for name in theirs} == shares[1]
        assert len(ours) + len(theirs) == len(names)


@pytest.mark.battery
@pytest.mark.timeout(180)
async def test_a_rolling_restart_of_three_static_members_loses_nothing_and_repeats_nothing(
    a_kafka_of_its_own: OwnServer, tmp_path: Path
) -> None:
    run = Run(a_kafka_of_its_own.url, tmp_path, order=PLAIN)
    await run.prepare()
    urls = [f"{run.url}?session=10&instance=worker-{number}" for number in range(3)]
    async with run.producers() as producers, run.consumers(0) as consumers:
        consumers.extend(await asyncio.gather(*map(run.consumer, urls)))
        async with run.load(producers, PRODUCERS, PAUSE):
            for url in urls:
                await asyncio.sleep(1.0)
                await consumers[0].stop()
                del consumers[0]
                consumers.append(await run.consumer(url))
            await asyncio.sleep(1.0)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert report.repeats == {"faults": 0}
    assert producers.failures == 0
