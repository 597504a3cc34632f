"""The network between a real broker and its clients breaks in every way that the proxy knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from broker_run import ORDERED, PATIENCE, Run, impatient, until
from history_parts import PUBLISH_WAIT, Producers, consuming
from servers import OwnServer

from callcast.testing import Proxy

PRODUCERS = 8
PAUSE = 0.01
NOTICED = 3.0
"""Seconds that a silent fault lasts: a client that asked to notice silence has done so."""
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
    "delay": lambda proxy: proxy.delay(0.2),
}
PRODUCER, CONSUMER = "producer", "consumer"


class Ground:
    """Producers and a consumer, each behind a proxy of its own."""

    def __init__(self, run: Run, producers: Producers, proxies: dict[str, Proxy]) -> None:
        self.run = run
        self.producers = producers
        self.proxies = proxies

    async def goes_on(self) -> None:
        """Return when more is published, and all that was is handled."""
        wanted = self.producers.acknowledged + ROUND
        await until(lambda: self.producers.acknowledged >= wanted)
        sent = {e.id for e in self.run.history() if e.op == "publish" and e.type == "ok"}
        await until(lambda: sent <= self.run.effects())


@asynccontextmanager
async def ground(url: str, folder: Path) -> AsyncIterator[Ground]:
    run = Run(url, folder, order=ORDERED)
    await run.prepare()
    stop = asyncio.Event()
    with Proxy.to(url) as before_producers, Proxy.to(url) as before_consumer:
        async with (
            consuming(impatient(before_consumer.through(url)), run.event, folder),
            run.producers(impatient(before_producers.through(url))) as producers,
        ):
            work = asyncio.gather(
                *(producers.publish_until(stop, f"p{n}", PAUSE) for n in range(PRODUCERS))
            )
            proxies = {PRODUCER: before_producers, CONSUMER: before_consumer}
            try:
                yield Ground(run, producers, proxies)
                stop.set()
                async with asyncio.timeout(PATIENCE):
                    await work
            finally:
                work.cancel()
            await run.rest()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("side", [PRODUCER, CONSUMER])
async def test_whatever_the_network_does_nothing_is_lost_and_all_goes_on(
    broker_of_its_own: OwnServer, tmp_path: Path, side: str, fault: str
) -> None:
    async with ground(broker_of_its_own.url, tmp_path) as here:
        await here.goes_on()
        proxy = here.proxies[side]
        known = proxy.accepted
        FAULTS[fault](proxy)
        if fault == "drop_reply":
            await until(lambda: proxy.dropped == 1)
        elif fault in {"reset", "delay"}:
            await here.goes_on()
        else:
            await asyncio.sleep(NOTICED)
        proxy.heal()
        healed = time.monotonic()
        await here.goes_on()
        took = time.monotonic() - healed
    report = await here.run.report()
    assert not report.faults, str(report)
    assert here.producers.slowest < PUBLISH_WAIT + LATE
    assert (proxy.accepted > known) == (fault != "delay"), "the fault hit nobody"
    assert took < PATIENCE / 2
