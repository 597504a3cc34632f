"""Inventory: puts goods aside, and puts them back."""

from __future__ import annotations

from callcast import Refused, Service, Transaction
from shop.contracts import RELEASE, RESERVE, Hold

service = Service(
    "inventory",
    schema=[
        "create table if not exists stock(sku text primary key, quantity integer)",
        "create table if not exists holds(id text, sku text, quantity integer)",
        "create table if not exists released(id text)",
        "insert or ignore into stock values ('tea', 9000), ('mug', 9000), ('piano', 9000)",
    ],
)


@service.serves(RESERVE)
async def reserve(hold: Hold, tx: Transaction) -> None:
    if await tx.fetch("select 1 from released where id = ?", hold.id):
        raise Refused("released before it was reserved", status=409)
    taken = await tx.execute(
        "update stock set quantity = quantity - ?2 where sku = ?1 and quantity >= ?2",
        hold.sku,
        hold.quantity,
    )
    if not taken:
        raise Refused(f"{hold.sku!r} is sold out", status=409)
    await tx.execute("insert into holds values (?, ?, ?)", hold.id, hold.sku, hold.quantity)


@service.serves(RELEASE)
async def release(hold_id: str, tx: Transaction) -> None:
    """Put back what was held, and remember it: the reservation may still be on its way here."""
    await tx.execute("insert into released values (?)", hold_id)
    for sku, quantity in await tx.fetch("select sku, quantity from holds where id = ?", hold_id):
        await tx.execute("update stock set quantity = quantity + ? where sku = ?", quantity, sku)
