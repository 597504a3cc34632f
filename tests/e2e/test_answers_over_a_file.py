"""Answers over the embedded broker: two buses on one file, an outbox between them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from callcast import Bus, Context, Event, Operation, Refused, Remote, Service, Struct, Transaction


class Order(Struct):
    id: str


class Packed(Struct):
    id: str
    parcels: int


PACK = Operation("warehouse.pack", Order, Packed, once=True)
PACKED = Event("warehouse.packed", Packed)
SCHEMA = ["create table if not exists parcels(order_id text)"]


def warehouse() -> Service:
    service = Service("warehouse", schema=SCHEMA)

    @service.serves(PACK)
    async def pack(order: Order, tx: Transaction) -> Packed:
        if order.id == "piano":
            raise Refused("no box fits", status=422, type="no-box")
        await tx.execute("insert into parcels(order_id) values (?)", order.id)
        return Packed(order.id, 1)

    return service


def parcels(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "shop.warehouse.db")) as cx:
        return [order for (order,) in cx.execute("select order_id from parcels order by 1")]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shop.db'}"


async def test_a_request_is_answered_by_another_bus_once_and_a_no_is_a_no(
    url: str, tmp_path: Path
) -> None:
    async with Bus(url, services=[warehouse()]), Bus(url, name="office") as office:
        first, second = await asyncio.gather(
            office.request(PACK, Order("o-1"), deadline=10),
            office.request(PACK, Order("o-2"), deadline=10),
        )
        assert (first, second) == (Packed("o-1", 1), Packed("o-2", 1))
        with pytest.raises(Remote, match="no box fits") as refused:
            await office.request(PACK, Order("piano"), deadline=10)
        assert (refused.value.status, refused.value.type) == (422, "no-box")
    assert parcels(tmp_path) == ["o-1", "o-2"]


async def test_the_answer_of_a_cast_is_an_event_that_leaves_with_the_commit_and_once(
    url: str, tmp_path: Path
) -> None:
    heard: list[tuple[Packed, str, str | None]] = []
    office = Service("office")

    @office.on(PACKED)
    async def note(packed: Packed, context: Context) -> None:
        heard.append((packed, context.correlation_id, context.causation_id))

    async with Bus(url, services=[office]) as bus, Bus(url, services=[warehouse()]) as other:
        for _ in range(2):  # the second is a duplicate: the inbox takes it
            await bus.cast(PACK, Order("o-1"), reply_to=PACKED, id="cast-1")
        async with asyncio.timeout(15):
            while not heard:
                await asyncio.sleep(0.01)
        await other.idle()
        await bus.idle()
    assert heard == [(Packed("o-1", 1), "cast-1", "cast-1")]
    assert parcels(tmp_path) == ["o-1"]
