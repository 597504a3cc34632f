"""RabbitMQ has an alarm and takes no publishes: they end in time, and consuming goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from broker_run import ORDERED, Run, until
from history_parts import PUBLISH_WAIT, consuming
from servers import OwnRabbitMq

WAITING = 500
PRODUCERS = 20
LATE = 1.0


@asynccontextmanager
async def alarm(server: OwnRabbitMq) -> AsyncIterator[None]:
    """The server says that its memory is used up."""
    mark = "set_vm_memory_high_watermark"
    await asyncio.to_thread(server.rabbitmqctl, mark, "0.000001")
    try:
        yield
    finally:
        await asyncio.to_thread(server.rabbitmqctl, mark, "0.6")


@pytest.mark.timeout(45)
async def test_under_an_alarm_publishes_end_in_time_and_what_waits_is_consumed(
    a_rabbitmq_of_its_own: OwnRabbitMq, tmp_path: Path
) -> None:
    run = Run(a_rabbitmq_of_its_own.url, tmp_path, order=ORDERED)
    await run.prepare()
    async with run.producers() as producers:
        each = WAITING // PRODUCERS
        await asyncio.gather(*(producers.publish(f"p{n}", each) for n in range(PRODUCERS)))
        async with alarm(a_rabbitmq_of_its_own):
            late = asyncio.gather(*(producers.publish(f"q{n}", 5) for n in range(PRODUCERS)))
            try:
                await until(lambda: producers.failures >= PRODUCERS)
                known = producers.acknowledged
                async with consuming(run.url, run.event, tmp_path):
                    await until(lambda: len(run.effects()) >= WAITING)
                assert producers.acknowledged == known, "there was no alarm"
            except BaseException:
                late.cancel()
                raise
        await late
    async with consuming(run.url, run.event, tmp_path):
        await run.rest()
    report = await run.report()
    assert not report.faults, str(report)
    assert len(report.acknowledged) == WAITING + 5 * PRODUCERS
    assert producers.slowest < PUBLISH_WAIT + LATE
