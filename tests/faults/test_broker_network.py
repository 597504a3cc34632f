"""The network between a real broker and its clients breaks in every way that the proxy knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from broker_run import ORDERED, SILENCE, Run, noticing, until
from history_parts import PUBLISH_WAIT, Producers, consuming
from servers import OwnServer

from callcast.testing import Proxy

PRODUCERS = 8
PAUSE = 0.01
BLIP = 1.0
"""Seconds of a silence that passes before anybody is sure of it."""
NOTICED = 25.0
"""Seconds in which a client that was asked to notice silence soon has connected anew."""
ROUND = 50
"""Messages that show that all goes well."""
LATE = 1.0
"""Seconds that a publish may take beyond its deadline, on a busy machine."""

FAULTS: dict[str, Callable[[Proxy], None]] = {
    "blackhole": Proxy.blackhole,
    "cut_up": Proxy.cut_up,
    "cut_down": Proxy.cut_down,
    "vanish": Proxy.vanish,
    "reset": Proxy.reset,
    "refuse": Proxy.refuse,
    "drop_reply": Proxy.drop_reply,
    "delay": lambda proxy: proxy.delay(0.05),
}
WORST = ("blackhole", "reset", "drop_reply")
"""One of each sort: a silence, an end, a lost answer. With Kafka the others are in the battery."""
SILENT = ["blackhole", "cut_up", "cut_down", "vanish"]
PRODUCER, CONSUMER = "producer", "consumer"


class Ground:
    """Producers and a consumer, each behind a proxy of its own."""

    def __init__(self, run: Run, producers: Producers, proxies: dict[str, Proxy]) -> None:
        self.run = run
        self.producers = producers
        self.proxies = proxies

    async def goes_on(self) -> None:
        """Return when all goes well."""
        await self.run.goes_on(self.producers, ROUND)

    async def judge(self) -> None:
        """See what the history says, and that nobody waited for ever."""
        report = await self.run.report()
        assert not report.faults, str(report)
        assert self.producers.slowest < PUBLISH_WAIT + LATE


@asynccontextmanager
async def ground(own: OwnServer, folder: Path) -> AsyncIterator[Ground]:
    url = own.url
    run = Run(url, folder, order=ORDERED)
    await run.prepare()
    with own.proxy() as before_producers, own.proxy() as before_consumer:
        async with (
            consuming(noticing(SILENCE, before_consumer.through(url)), run.event, folder),
            run.producers(noticing(SILENCE, before_producers.through(url))) as producers,
        ):
            proxies = {PRODUCER: before_producers, CONSUMER: before_consumer}
            here = Ground(run, producers, proxies)
            async with run.load(producers, PRODUCERS, PAUSE):
                await here.goes_on()
                yield here
                await here.goes_on()
            await run.rest()
    await here.judge()


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("broker_of_its_own", "fault"),
    [
        *(("a_rabbitmq_of_its_own", fault) for fault in FAULTS),
        *(("a_kafka_of_its_own", fault) for fault in WORST),
        *(
            pytest.param("a_kafka_of_its_own", fault, marks=pytest.mark.battery)
            for fault in FAULTS
            if fault not in WORST
        ),
    ],
    indirect=["broker_of_its_own"],
)
@pytest.mark.parametrize("side", [PRODUCER, CONSUMER])
async def test_whatever_the_network_does_nothing_is_lost_and_all_goes_on(
    broker_of_its_own: OwnServer, tmp_path: Path, side: str, fault: str
) -> None:
    async with ground(broker_of_its_own, tmp_path) as here:
        proxy = here.proxies[side]
        known, failed = proxy.accepted, here.producers.failures
        FAULTS[fault](proxy)
        if fault == "drop_reply":
            await until(lambda: proxy.dropped == 1)
        elif fault == "delay":
            await here.goes_on()
        elif fault in {"reset", "refuse"}:
            await until(lambda: proxy.accepted > known)
        elif side == PRODUCER:
            await until(lambda: here.producers.failures > failed)
        else:
            await asyncio.sleep(BLIP)
        proxy.heal()


@pytest.mark.battery
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", SILENT)
@pytest.mark.parametrize("side", [PRODUCER, CONSUMER])
async def test_a_silence_that_lasts_is_noticed_and_a_new_connection_is_made(
    broker_of_its_own: OwnServer, tmp_path: Path, side: str, fault: str
) -> None:
    async with ground(broker_of_its_own, tmp_path) as here:
        proxy = here.proxies[side]
        known = proxy.accepted
        FAULTS[fault](proxy)
        await until(lambda: proxy.accepted > known, NOTICED)
        proxy.heal()
