"""Payments: asks the bank, and remembers what it said."""

from __future__ import annotations

from callcast import Refused, Service, Transaction
from shop import bank
from shop.contracts import AUTHORISE, VOID, Charge

service = Service(
    "payments",
    schema=[
        "create table if not exists charges(id text, cents integer)",
        "create table if not exists voided(id text)",
    ],
)


@service.serves(AUTHORISE)
async def authorise(charge: Charge, tx: Transaction) -> None:
    """Ask before the first write: however slow the bank is, it holds no lock of ours."""
    if not await bank.authorise(charge.cents, key=charge.id):
        raise Refused("the card was declined", status=402)
    if await tx.fetch("select 1 from voided where id = ?", charge.id):
        raise Refused("voided before it was authorised", status=409)
    await tx.execute("insert into charges values (?, ?)", charge.id, charge.cents)


@service.serves(VOID)
async def void(charge_id: str, tx: Transaction) -> None:
    """Also for a charge that never came: it may still be on its way here."""
    await bank.void(key=charge_id)
    await tx.execute("insert into voided values (?)", charge_id)
