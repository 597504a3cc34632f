"""Consumers of a real broker that die or are replaced under load: nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from broker_run import DEATH, IN_EACH_ORDER, Consumer, Run, noticing
from servers import OwnServer

PRODUCERS = 20
PAUSE = 0.02
"""Seconds between two publishes of one producer: the consumers are busy and keep up."""
CONSUMERS = 3
KILLS, KILLS_OF_BATTERY = 6, 60
"""Kills that hit a handler at work."""
EACH_MOST = 2 * 10.0
"""Seconds in which one such kill must be done, on the average."""


async def kill_at_random(run: Run, consumers: list[Consumer], kills: int) -> int:
    """Kill consumers until so many were hit in a handler; each is replaced meanwhile."""
    dice = random.Random(7)
    hits = 0
    deadline = time.monotonic() + kills * EACH_MOST
    while hits < kills and time.monotonic() < deadline:
        coming = asyncio.create_task(run.consumer())
        try:
            await asyncio.sleep(dice.uniform(0.05, 0.4))
            victim = consumers.pop(dice.randrange(len(consumers)))
            hits += await victim.kill()
        finally:
            consumers.append(await coming)
    return hits


async def lose_nothing(run: Run, kills: int) -> None:
    """Kill so often, then see what the history says."""
    await run.prepare()
    async with run.producers() as producers, run.consumers(CONSUMERS) as consumers:
        async with run.load(producers, PRODUCERS, PAUSE):
            hits = await kill_at_random(run, consumers, kills)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert hits >= kills
    assert producers.failures == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("broker_of_its_own", "order"), IN_EACH_ORDER, indirect=["broker_of_its_own"]
)
async def test_consumers_killed_at_random_lose_nothing(
    broker_of_its_own: OwnServer, tmp_path: Path, order: str
) -> None:
    await lose_nothing(Run(noticing(DEATH, broker_of_its_own.url), tmp_path, order=order), KILLS)


@pytest.mark.battery
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("broker_of_its_own", "order"), IN_EACH_ORDER, indirect=["broker_of_its_own"]
)
async def test_consumers_killed_at_random_for_minutes_lose_nothing(
    broker_of_its_own: OwnServer, tmp_path: Path, order: str
) -> None:
    await lose_nothing(
        Run(noticing(DEATH, broker_of_its_own.url), tmp_path, order=order), KILLS_OF_BATTERY
    )


@pytest.mark.parametrize(
    ("broker_of_its_own", "order"), IN_EACH_ORDER, indirect=["broker_of_its_own"]
)
async def test_a_rolling_restart_of_three_consumers_loses_nothing_and_repeats_nothing(
    broker_of_its_own: OwnServer, tmp_path: Path, order: str
) -> None:
    run = Run(noticing(DEATH, broker_of_its_own.url), tmp_path, order=order)
    await run.prepare()
    async with run.producers() as producers, run.consumers(CONSUMERS) as consumers:
        async with run.load(producers, PRODUCERS, PAUSE):
            for _ in range(CONSUMERS):
                await asyncio.sleep(0.5)
                await consumers[0].stop()
                del consumers[0]
                consumers.append(await run.consumer())
            await asyncio.sleep(0.5)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert report.repeats == {"faults": 0}
    assert producers.failures == 0
