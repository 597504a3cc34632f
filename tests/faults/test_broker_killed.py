"""A broker that dies with SIGKILL in the middle of the work, and comes back: nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker_run import ORDERED, PLAIN, Run, until
from servers import OwnServer

MESSAGES = 10_000
PRODUCERS = 20
CONSUMERS = 2
PAUSE = 0.01
"""Seconds of each producer between two messages: a kill takes longer than half of them would."""


BROKERS = [
    ("a_rabbitmq_of_its_own", PLAIN),
    # The same once more, each for a minute.
    pytest.param("a_kafka_of_its_own", ORDERED, marks=pytest.mark.battery),
    pytest.param("a_rabbitmq_of_its_own", ORDERED, marks=pytest.mark.battery),
    pytest.param("a_kafka_of_its_own", PLAIN, marks=pytest.mark.battery),
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("broker_of_its_own", "order"), BROKERS, indirect=["broker_of_its_own"])
async def test_killed_at_a_third_and_at_half_of_ten_thousand_messages_it_loses_none(
    broker_of_its_own: OwnServer, tmp_path: Path, order: str
) -> None:
    run = Run(broker_of_its_own.url, tmp_path, order=order)
    await run.prepare()
    async with run.consumers(CONSUMERS), run.producers() as producers:
        each = MESSAGES // PRODUCERS
        work = asyncio.gather(*(producers.publish(f"p{n}", each, PAUSE) for n in range(PRODUCERS)))
        try:
            for share in (MESSAGES // 3, MESSAGES // 2):
                await until(lambda share=share: producers.acknowledged >= share)
                failed = producers.failures
                await asyncio.to_thread(broker_of_its_own.kill)
                producers.go_on.clear()  # it serves before `restart` returns
                await asyncio.to_thread(broker_of_its_own.restart)
                assert producers.failures > failed, "the kill hit nobody"
                producers.go_on.set()
            await work
        finally:
            work.cancel()
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert len(report.acknowledged) == MESSAGES
