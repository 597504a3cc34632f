"""The hourly purge of a service's inbox."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from transaction_parts import Bench, bench

from callcast import Bus, Event, Service, Transaction
from callcast.core.errors import Unavailable
from callcast.ports.broker import Lag, Part, Source
from callcast.runtime.sweeper import EVERY, Sweeper
from callcast.stores.inbox import Arrival
from callcast.testing.clock import ManualClock

PLACED = Source("orders.placed", "warehouse")
PAID = Source("orders.paid", "warehouse")


class Waiting:
    """A feed in which messages of some age wait, or none that is away."""

    def __init__(self, **ages: float) -> None:
        self._ages = ages

    async def lag(self, source: Source) -> Lag:
        age = self._ages.get(source.topic.rpartition(".")[2], 0.0)
        if age < 0:
            raise Unavailable("away")
        return Lag(oldest=age)

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> object:
        raise AssertionError(source, part, lease, prefetch)


async def fill(b: Bench, *consumers: str, age: float) -> None:
    async with b.database.begin() as session:
        for consumer in consumers:
            await b.units.inbox.enter(session, Arrival(consumer, "orders", "1", b""))
        await session.execute("update callcast_inbox set processed_at = processed_at - ?", age)


async def known(b: Bench) -> list[object]:
    return await b.rows("select consumer from callcast_inbox order by 1")


def sweeper(b: Bench, feed: Waiting) -> Sweeper:
    made = Sweeper(b.units, feed, retention=100.0)  # type: ignore[arg-type]
    made.add("warehouse", PLACED)
    made.add("warehouse", PAID)
    made.add("payments", None)
    return made


async def test_each_consumer_is_purged_by_its_own_oldest_message() -> None:
    async with bench() as b:
        await fill(b, "warehouse", "payments", "others", age=200.0)
        await sweeper(b, Waiting(placed=10.0, paid=300.0)).sweep()
        assert await known(b) == ["others", "warehouse"]
        await sweeper(b, Waiting(placed=10.0, paid=0.0)).sweep()
        assert await known(b) == ["others"]


async def test_young_rows_stay() -> None:
    async with bench() as b:
        await fill(b, "warehouse", "payments", age=50.0)
        await sweeper(b, Waiting()).sweep()
        assert await known(b) == ["payments", "warehouse"]


async def test_a_broker_that_is_away_leaves_it_to_the_next_hour_and_the_others_are_purged() -> None:
    async with bench() as b:
        await fill(b, "warehouse", "payments", age=200.0)
        await sweeper(b, Waiting(placed=-1.0)).sweep()
        assert await known(b) == ["warehouse"]


async def test_it_runs_every_hour() -> None:
    clock = ManualClock()
    async with bench(clock=clock) as b:
        await fill(b, "warehouse", age=200.0)
        running = b.tasks.start(sweeper(b, Waiting()).run(), name="sweeper")
        await clock.advance(EVERY - 1)
        assert await known(b) == ["warehouse"]
        await clock.advance(1)
        while await known(b):
            await asyncio.sleep(0.001)
        running.cancel()


@pytest.mark.parametrize(("retain", "said"), [("864000", True), ("3600", False)])
async def test_a_log_that_outlives_the_inbox_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, retain: str, said: bool
) -> None:
    service = Service("warehouse")

    @service.on(Event("orders.placed", str))
    async def pack(order: str, tx: Transaction) -> None: ...

    async with Bus(f"sqlite:///{tmp_path / 'shop.db'}?retain={retain}", services=[service]):
        pass
    assert ("raise inbox_retention to 864000 s" in caplog.text) is said
