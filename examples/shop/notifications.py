"""Notifications: writes to the buyer when the parcel leaves."""

from __future__ import annotations

from callcast import Service, Transaction
from shop.contracts import SHIPPED, Parcel

service = Service(
    "notifications",
    schema=["create table if not exists mails(order_id text, body text)"],
)


@service.on(SHIPPED)
async def mail(parcel: Parcel, tx: Transaction) -> None:
    """Into the tray of the mail server, which sends by the order's id and so once."""
    body = f"Your order {parcel.order_id} is on its way, in a {parcel.box} box."
    await tx.execute("insert into mails values (?, ?)", parcel.order_id, body)
