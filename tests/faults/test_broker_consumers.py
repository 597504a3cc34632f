"""Consumers of a real broker that die or are replaced under load: nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from broker_run import ORDERED, PLAIN, Run
from history_parts import Producers
from servers import OwnServer

PRODUCERS = 20
PAUSE = 0.02
"""Seconds between two publishes of one producer: the consumers are busy and keep up."""
CONSUMERS = 3
KILLS = 10
"""Kills that hit a handler at work."""
KILLING_MOST = 40.0
"""Seconds in which so many must have been hit."""


@asynccontextmanager
async def load(run: Run) -> AsyncIterator[Producers]:
    """Producers that go on until the block ends, and then finish what they have begun."""
    stop = asyncio.Event()
    async with run.producers() as producers:
        work = asyncio.gather(
            *(producers.publish_until(stop, f"p{n}", PAUSE) for n in range(PRODUCERS))
        )
        try:
            yield producers
            stop.set()
            await work
        finally:
            work.cancel()


async def kill_at_random(run: Run, kills: int, most: float) -> int:
    """Kill consumers at work, each time another one comes; how many were hit in a handler."""
    dice = random.Random(7)
    hits = 0
    deadline = time.monotonic() + most
    async with run.consumers(CONSUMERS) as consumers:
        while hits < kills and time.monotonic() < deadline:
            await asyncio.sleep(dice.uniform(0.05, 0.4))
            place = dice.randrange(len(consumers))
            hits += await consumers[place].kill()
            consumers[place] = await run.consumer()
        await run.rest()
    return hits


@pytest.mark.timeout(120)
@pytest.mark.parametrize("order", [ORDERED, PLAIN])
async def test_consumers_killed_at_random_lose_nothing(
    broker_of_its_own: OwnServer, tmp_path: Path, order: str
) -> None:
    run = Run(broker_of_its_own.url, tmp_path, order=order)
    await run.prepare()
    async with load(run) as producers:
        hits = await kill_at_random(run, KILLS, KILLING_MOST)
    async with run.consumers(1):
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert hits >= KILLS
    assert producers.failures == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("order", [ORDERED, PLAIN])
async def test_a_rolling_restart_of_three_consumers_loses_nothing_and_repeats_nothing(
    broker_of_its_own: OwnServer, tmp_path: Path, order: str
) -> None:
    run = Run(broker_of_its_own.url, tmp_path, order=order)
    await run.prepare()
    async with run.consumers(CONSUMERS) as consumers, load(run) as producers:
        for place, old in enumerate(consumers):
            await asyncio.sleep(0.5)
            await old.stop()
            consumers[place] = await run.consumer()
        await asyncio.sleep(0.5)
    async with run.consumers(1):
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert report.repeats == {"faults": 0}
    assert producers.failures == 0
