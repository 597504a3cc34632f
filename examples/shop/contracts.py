"""What the services of the shop agree on. They share this module and nothing else."""

from __future__ import annotations

from callcast import Event, Needs, Operation, Struct


class Order(Struct):
    id: str
    sku: str
    quantity: int
    cents: int


class Confirmed(Struct):
    order_id: str


class Hold(Struct):
    """Goods put aside for one attempt to check out."""

    id: str
    sku: str
    quantity: int


class Charge(Struct):
    """Money put aside for one attempt to check out."""

    id: str
    cents: int


class Parcel(Struct):
    order_id: str
    box: str


class Box(Struct):
    sku: str
    size: str


# The buyer waits for these three, so they are called. `once`: however often a call is repeated
# because its answer was lost, its effect happens once, and the repeated call gets the first answer.
CHECKOUT = Operation(
    "orders.checkout",
    Order,
    Confirmed,
    http="POST /orders",
    once=True,
    deadline=5.0,
    needs=Needs(response="value", needed_within=5.0, coupling="one_known"),
)
RESERVE = Operation(
    "inventory.reserve",
    Hold,
    None,
    once=True,
    needs=Needs(response="ack", consistency="strong", on_failure="fail_caller"),
)
AUTHORISE = Operation(
    "payments.authorise",
    Charge,
    None,
    once=True,
    needs=Needs(response="ack", consistency="strong", on_failure="fail_caller"),
)

# Nobody waits for an undo, but it must happen: these are cast, and wait for a service that is away.
# `once` here too: goods that are put back twice are goods that are not there.
RELEASE = Operation(
    "inventory.release",
    str,
    None,
    once=True,
    needs=Needs(response="none", on_failure="must_not_lose"),
)
VOID = Operation(
    "payments.void",
    str,
    None,
    once=True,
    needs=Needs(response="none", on_failure="must_not_lose"),
)

ADD_BOX = Operation("fulfilment.add-box", Box, None, idempotent=True)

# Facts. With a key they are ordered: what happens to one order is handled one at a time, in order.
PLACED = Event(
    "orders.placed",
    Order,
    key=lambda order: order.id,
    needs=Needs(response="none", on_failure="must_not_lose", coupling="many", ordering="per_key"),
)
SHIPPED = Event(
    "fulfilment.shipped",
    Parcel,
    key=lambda parcel: parcel.order_id,
    needs=Needs(response="none", on_failure="must_not_lose", coupling="many", ordering="per_key"),
)
