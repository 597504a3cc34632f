"""Fulfilment: packs what was ordered, once per order, however often it is told."""

from __future__ import annotations

import asyncio
import logging

from callcast import Refused, Service, Transaction
from shop.contracts import ADD_BOX, PLACED, SHIPPED, Box, Order, Parcel

log = logging.getLogger(__name__)

WALK = 0.05  # seconds to the shelf and back

service = Service(
    "fulfilment",
    schema=[
        "create table if not exists boxes(sku text primary key, size text)",
        "create table if not exists parcels(order_id text, box text)",
        "insert or ignore into boxes values ('tea', 'small'), ('mug', 'medium')",
    ],
)


@service.on(PLACED)
async def pack(order: Order, tx: Transaction) -> None:
    log.info("packing %s", order.id)
    await asyncio.sleep(WALK)
    boxes = await tx.fetch("select size from boxes where sku = ?", order.sku)
    if not boxes:
        raise Refused(f"no box fits {order.sku!r}: add one, then redrive the dead letter")
    parcel = Parcel(order.id, str(boxes[0][0]))
    await tx.execute("insert into parcels values (?, ?)", parcel.order_id, parcel.box)
    await tx.publish(SHIPPED, parcel)


@service.serves(ADD_BOX)
async def add_box(box: Box, tx: Transaction) -> None:
    await tx.execute("insert or replace into boxes values (?, ?)", box.sku, box.size)
