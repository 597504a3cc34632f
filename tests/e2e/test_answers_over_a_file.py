"""Answers over the embedded broker: two buses on one file, an outbox between them."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from callcast import (
    Bus,
    Context,
    Event,
    Operation,
    Refused,
    Remote,
    Service,
    Struct,
    Transaction,
    Unanswered,
)


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


ASKER = """
import asyncio, sys
from callcast import Bus, Operation

async def ask():
    async with Bus(sys.argv[1], name="office") as office:
        await office.request(Operation("nobody.home", str, str, idempotent=True), "?", deadline=60)

asyncio.run(ask())
"""


def addresses(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "shop.db")) as cx:
        query = (
            "select topic.name from source join topic on topic.id = source.topic"
            " where topic.name like 'callcast.replies.%'"
        )
        return [name for (name,) in cx.execute(query)]


async def test_the_address_of_an_asker_that_was_killed_goes_when_the_next_one_asks(
    url: str, tmp_path: Path
) -> None:
    async with Bus(url, services=[warehouse()]), Bus(url, name="office") as office:
        await office.request(PACK, Order("o-1"), deadline=10)
        (of_the_living,) = addresses(tmp_path)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", ASKER, url)
        async with asyncio.timeout(20):
            while len(addresses(tmp_path)) < 2:
                assert child.returncode is None
                await asyncio.sleep(0.02)
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        async with Bus(url, name="office") as next_one, asyncio.timeout(20):
            await next_one.request(PACK, Order("o-2"), deadline=10)
            while str(child.pid) in "".join(each.split(".")[-2] for each in addresses(tmp_path)):
                await asyncio.sleep(0.02)
            assert of_the_living in addresses(tmp_path)
            assert len(addresses(tmp_path)) == 2
    assert addresses(tmp_path) == []


async def test_an_answer_that_finds_its_asker_gone_is_of_use_to_nobody_and_tried_once(
    url: str, tmp_path: Path
) -> None:
    runs: list[str] = []
    quote = Operation("warehouse.quote", str, int, idempotent=True)
    service = warehouse()

    @service.serves(quote)
    async def answer(sku: str) -> int:
        runs.append(sku)
        return len(sku)

    async with Bus(url, name="office") as office:
        # Long enough to be sent on a busy disk; nobody is there to answer.
        answers = await asyncio.gather(
            office.request(quote, "tea", deadline=2.0),
            office.request(PACK, Order("o-1"), deadline=2.0),
            office.request(PACK, Order("piano"), deadline=2.0),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [Unanswered] * 3
    async with Bus(url, services=[service]) as bus:
        await bus.idle()
    assert runs == ["tea"]
    assert parcels(tmp_path) == ["o-1"]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as cx:
        letters = cx.execute("select count(*) from held").fetchone()
    assert letters == (1,)  # the piano, which was refused
