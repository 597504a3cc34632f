"""Three RabbitMQs, and the one that leads the queues dies: the others go on, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from broker_run import ORDERED, PLAIN, Run, impatient, until
from servers import OwnRabbitMq

MESSAGES = 6_000
PRODUCERS = 20
CONSUMERS = 2


def leader(server: OwnRabbitMq, run: Run) -> str:
    """The node that leads the first of the group's queues: "1", "2" or "3"."""
    queues = cast("list[dict[str, Any]]", server.manage("GET", f"queues/{server.vhost}"))
    leading = [str(each["leader"]) for each in queues if run.topic in each["name"]]
    ports = [url.rpartition(":")[2].partition("/")[0] for url in server.url.split(",")]
    (number,) = [n for n, port in enumerate(ports, 1) if f"-{port}@" in leading[0]]
    return str(number)


async def lose_nothing(server: OwnRabbitMq, run: Run, hurt: str, heal: str) -> None:
    """Hurt the leader while messages flow, heal it while they flow."""
    await run.prepare()
    async with run.consumers(CONSUMERS), run.producers(run.url) as producers:
        each = MESSAGES // PRODUCERS
        work = asyncio.gather(*(producers.publish(f"p{n}", each) for n in range(PRODUCERS)))
        try:
            await until(lambda: producers.acknowledged >= MESSAGES // 3)
            node = await asyncio.to_thread(leader, server, run)
            failed = producers.failures
            await asyncio.to_thread(getattr(server, hurt), node)
            await until(lambda: producers.acknowledged >= MESSAGES // 2)
            assert producers.failures > failed, "it hit nobody"
            await asyncio.to_thread(getattr(server, heal), node)
            await work
        finally:
            work.cancel()
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
    assert len(report.acknowledged) == MESSAGES


@pytest.mark.battery
@pytest.mark.timeout(180)
@pytest.mark.parametrize("order", [ORDERED, PLAIN])
@pytest.mark.parametrize(("hurt", "heal"), [("kill", "restart"), ("freeze", "thaw")])
async def test_the_leader_of_three_is_gone_and_the_others_go_on(
    three_rabbitmqs: OwnRabbitMq, tmp_path: Path, order: str, hurt: str, heal: str
) -> None:
    run = Run(impatient(three_rabbitmqs.url), tmp_path, order=order)
    await lose_nothing(three_rabbitmqs, run, hurt, heal)
