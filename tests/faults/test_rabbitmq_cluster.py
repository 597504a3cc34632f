"""Three RabbitMQs, and the one that leads the queues dies: the others go on, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from broker_run import ORDERED, PLAIN, SILENCE, Run, noticing
from servers import OwnRabbitMq

PRODUCERS = 20
PAUSE = 0.01
CONSUMERS = 2
ROUND = 500
"""Messages that show that all goes on."""
ELECTED = 60.0
"""Seconds in which the others have noticed, and lead, and clients have found them."""

HARMS = [
    ("kill", "restart", ORDERED),
    ("kill", "restart", PLAIN),
    # Last: a node that stood still for so long leaves its cluster for a while once it goes on.
    ("freeze", "thaw", ORDERED),
]


def leader(server: OwnRabbitMq, run: Run) -> str:
    """The node that leads the first of the group's queues: "1", "2" or "3"."""
    queues = cast("list[dict[str, Any]]", server.manage("GET", f"queues/{server.vhost}"))
    leading = [str(each.get("leader")) for each in queues if run.topic in each["name"]]
    ports = [url.rpartition(":")[2].partition("/")[0] for url in server.url.split(",")]
    return next((str(n) for n, port in enumerate(ports, 1) if f"-{port}@" in leading[0]), "")


@pytest.mark.battery
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("hurt", "heal", "order"), HARMS)
async def test_the_leader_of_three_is_gone_and_the_others_go_on(
    three_rabbitmqs: OwnRabbitMq, tmp_path: Path, order: str, hurt: str, heal: str
) -> None:
    server = three_rabbitmqs
    run = Run(noticing(SILENCE, server.url), tmp_path, order=order)
    await run.prepare()
    async with run.producers() as producers, run.consumers(CONSUMERS):
        async with run.load(producers, PRODUCERS, PAUSE):
            await run.goes_on(producers, ROUND)
            node = await asyncio.to_thread(leader, server, run)
            assert node, "nobody leads"
            await asyncio.to_thread(getattr(server, hurt), node)
            await run.goes_on(producers, ROUND, ELECTED)
            await asyncio.to_thread(getattr(server, heal), node)
            await run.goes_on(producers, ROUND)
        await run.rest()
        report = await run.report()
    assert not report.faults, str(report)
