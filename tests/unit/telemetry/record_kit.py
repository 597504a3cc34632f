"""A shop of three services on a broker file, whose record can be read afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from callcast import Bus, Event, Operation, Recovery, Refused, Service

STOCK = Operation("inventory.stock", str, int, idempotent=True)
MAIL = Operation("mail.send", str, None, idempotent=True)
PLACED = Event("orders.placed", str)


def shop() -> list[Service]:
    inventory, warehouse, mail = Service("inventory"), Service("warehouse"), Service("mail")

    @inventory.serves(STOCK)
    async def stock(sku: str) -> int:
        if sku == "poison":
            raise Refused("no such thing")
        return len(sku)

    @warehouse.on(PLACED, recovery=Recovery(immediate=0, delays=()))
    async def pack(sku: str, bus: Bus) -> None:
        await bus.call(STOCK, sku)
        await bus.call(STOCK, sku)
        await bus.cast(MAIL, sku)

    @mail.serves(MAIL)
    async def send(sku: str) -> None:
        del sku

    return [inventory, warehouse, mail]


def ran(folder: Path, act: Callable[[Bus], Awaitable[object]]) -> str:
    """Run the shop, do something with it, and return where its record is."""

    async def run() -> None:
        async with Bus(f"sqlite:///{folder / 'shop.db'}", name="till", services=shop()) as bus:
            await act(bus)
            await bus.idle()

    asyncio.run(run())
    return str(folder / "shop.db.record")
