"""The shop: in one process, and as five buses that reach each other over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from callcast import Bus, Policy, Remote, Settings
from callcast.cli.demo.ledgers import Ledgers
from callcast.cli.letters import Redrive, Wanted, browse
from callcast.cli.run import listener
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.service import Service
from shop import bank, fulfilment, inventory, notifications, orders, payments
from shop.contracts import (
    ADD_BOX,
    AUTHORISE,
    CHECKOUT,
    RELEASE,
    RESERVE,
    VOID,
    Box,
    Charge,
    Confirmed,
    Hold,
    Order,
)

SERVICES: Sequence[Service] = [
    module.service for module in (orders, inventory, payments, fulfilment, notifications)
]
TEA = Order("o-1", "tea", 2, 900)


class Shop:
    """The shop, open: a bus to buy through, and its ledgers."""

    def __init__(self, client: Bus, buses: Sequence[Bus], broker: str) -> None:
        self.client = client
        self.buses = buses
        self.broker = broker
        stem = Path(registry.sqlite_path(broker))
        self.ledgers = Ledgers(lambda service: stem.with_name(f"{stem.stem}.{service}.db"))

    async def idle(self) -> None:
        for _ in range(2):  # what one bus has done may have sent work to another
            for bus in self.buses:
                await bus.idle()

    def rows(self, *names: str) -> list[list[str]]:
        return [sorted(self.ledgers.rows(name)) for name in names]


@asynccontextmanager
async def monolith(broker: str) -> AsyncGenerator[Shop]:
    """One process, one bus: services call each other directly."""
    async with Bus(broker, services=SERVICES, name="shop") as bus:
        yield Shop(bus, [bus], broker)


@asynccontextmanager
async def apart(broker: str) -> AsyncGenerator[Shop]:
    """A bus for each service; they share the broker and call each other over HTTP."""
    async with AsyncExitStack() as stack:
        sockets = {service.name: listener("127.0.0.1", 0) for service in SERVICES}
        peers = {
            name: f"http://127.0.0.1:{socket.getsockname()[1]}" for name, socket in sockets.items()
        }
        buses = [Bus(broker, services=[service], peers=peers) for service in SERVICES]
        servers = [registry.http_server(bus.asgi(), sockets[bus.name]) for bus in buses]
        serving = [asyncio.create_task(server.serve()) for server in servers]

        async def stop() -> None:
            for server in servers:
                server.stop()
            await asyncio.gather(*serving)

        stack.push_async_callback(stop)
        for bus in buses:
            await stack.enter_async_context(bus)
        policy = Policy(retry=None, breaker=None)
        client = Bus("memory://", name="buyer", peers=peers, settings=Settings(policy=policy))
        await stack.enter_async_context(client)
        yield Shop(client, buses, broker)


OpenShop = Callable[[], AbstractAsyncContextManager[Shop]]


@pytest.fixture(params=[monolith, apart])
def open_shop(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> OpenShop:
    monkeypatch.chdir(tmp_path)  # the bank's mood is a file in the working folder
    monkeypatch.setattr(bank, "SLOW", 0.3)
    return partial(request.param, f"sqlite:///{tmp_path / 'shop.db'}")


async def test_an_order_is_reserved_charged_packed_and_mailed_once(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        assert await shop.client.call(CHECKOUT, TEA) == Confirmed("o-1")
        await shop.idle()
        assert shop.rows("orders", "parcels", "mails") == [["o-1"], ["o-1"], ["o-1"]]
        assert shop.rows("holds") == shop.rows("charges")
        assert shop.rows("released", "voided") == [[], []]


async def test_an_order_that_is_sent_twice_happens_once(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        answers = await asyncio.gather(
            *[shop.client.call(CHECKOUT, TEA, id="click") for _ in range(3)]
        )
        assert answers == [Confirmed("o-1")] * 3
        await shop.idle()
        assert shop.rows("orders", "parcels", "mails") == [["o-1"], ["o-1"], ["o-1"]]
        holds, released = map(set, shop.rows("holds", "released"))
        assert len(holds - released) == 1


async def test_a_declined_card_releases_the_reservation(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        with pytest.raises(Remote) as caught:
            await shop.client.call(CHECKOUT, Order("o-2", "tea", 2, bank.LIMIT + 1))
        assert (caught.value.status, caught.value.detail) == (402, "the card was declined")
        await shop.idle()
        assert shop.rows("holds") == shop.rows("released")
        assert shop.rows("orders", "charges", "parcels") == [[], [], []]


async def test_what_is_sold_out_is_refused_and_nothing_is_charged(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        with pytest.raises(Remote) as caught:
            await shop.client.call(CHECKOUT, Order("o-3", "unicorn", 1, 100))
        assert caught.value.status == 409
        await shop.idle()
        assert shop.rows("holds", "charges", "orders") == [[], [], []]


async def test_a_bank_that_fails_leaves_nothing_behind(open_shop: OpenShop, tmp_path: Path) -> None:
    (tmp_path / "bank.mood").write_text("failing")
    async with open_shop() as shop:
        with pytest.raises(Remote) as caught:
            await shop.client.call(CHECKOUT, TEA)
        assert caught.value.status == 503
        await shop.idle()
        # On a busy machine a reservation may end before it was made: its undo is sent all the same.
        assert set(shop.ledgers.rows("holds")) <= set(shop.ledgers.rows("released"))
        assert shop.rows("charges", "orders") == [[], []]


async def test_a_buyer_who_hangs_up_leaves_nothing_behind(
    open_shop: OpenShop, tmp_path: Path
) -> None:
    (tmp_path / "bank.mood").write_text("slow")
    async with open_shop() as shop:
        buying = asyncio.create_task(shop.client.call(CHECKOUT, TEA))
        for _ in range(500):
            if shop.ledgers.count("holds"):
                break
            await asyncio.sleep(0.005)
        buying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await buying
        for _ in range(500):
            if shop.ledgers.count("released") and shop.ledgers.count("voided"):
                break
            await asyncio.sleep(0.01)
        await shop.idle()
        assert shop.rows("holds") == shop.rows("released")
        assert set(shop.ledgers.rows("charges")) <= set(shop.ledgers.rows("voided"))
        assert shop.rows("orders") == [[]]


async def test_an_order_that_fits_no_box_is_redriven_once_there_is_one(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        await shop.client.call(CHECKOUT, Order("o-4", "piano", 1, 99_000))
        await shop.idle()
        clock = AsyncioClock()
        broker = registry.open_broker(shop.broker, clock)
        try:
            [letter] = [letter async for letter, _ in browse(broker, Wanted())]
            assert (letter.key, letter.group) == ("o-4", "fulfilment")
            assert "no box fits 'piano'" in letter.reason
            await shop.client.call(ADD_BOX, Box("piano", "crate"))
            results = [each async for each in Redrive(broker, Wanted(), clock=clock, by="test")()]
            assert [(each.id, each.error) for each in results] == [(letter.id, "")]
            await shop.idle()
            assert [letter async for letter, _ in browse(broker, Wanted())] == []
        finally:
            await broker.close()
        assert shop.rows("parcels", "mails") == [["o-4"], ["o-4"]]


async def test_an_undo_that_comes_first_blocks_what_it_undoes(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        bus = shop.buses[0]
        await bus.cast(RELEASE, "o-5.x")
        await bus.cast(VOID, "o-5.x")
        await shop.idle()
        with pytest.raises(Remote):
            await bus.call(RESERVE, Hold("o-5.x", "tea", 1))
        with pytest.raises(Remote):
            await bus.call(AUTHORISE, Charge("o-5.x", 100))
        assert shop.rows("holds", "charges") == [[], []]
