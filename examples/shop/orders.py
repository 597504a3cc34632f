"""Orders: takes one, or says no and leaves nothing behind."""

from __future__ import annotations

from contextlib import AsyncExitStack
from uuid import uuid4

from callcast import Bus, NotSent, Refused, Remote, Service, Transaction, Unanswered
from shop.contracts import (
    AUTHORISE,
    CHECKOUT,
    PLACED,
    RELEASE,
    RESERVE,
    VOID,
    Charge,
    Confirmed,
    Hold,
    Order,
)

service = Service(
    "orders",
    schema=[
        "create table if not exists orders(id text, sku text, quantity integer, attempt text)",
    ],
)


@service.serves(CHECKOUT)
async def checkout(order: Order, bus: Bus, tx: Transaction) -> Confirmed:
    """Call first, while no lock is held; then write the order and tell, in one commit.

    A failure is undone here. Had this process died between two calls, only a saga would undo it.
    """
    # Each run has ids of its own: should the buyer's client repeat itself while the first run is
    # still going, the one that comes too late undoes what it did, not what the other did.
    attempt = f"{order.id}.{uuid4().hex[:12]}"
    async with AsyncExitStack() as undo:
        # Each undo is named before its call: a call that failed may have happened all the same.
        undo.push_async_callback(bus.cast, RELEASE, attempt, now=True)
        await reserve(bus, Hold(attempt, order.sku, order.quantity))
        undo.push_async_callback(bus.cast, VOID, attempt, now=True)
        await authorise(bus, Charge(attempt, order.cents))
        await tx.execute(
            "insert into orders values (?, ?, ?, ?)", order.id, order.sku, order.quantity, attempt
        )
        await tx.publish(PLACED, order)
        undo.pop_all()
    return Confirmed(order.id)


async def reserve(bus: Bus, hold: Hold) -> None:
    try:
        await bus.call(RESERVE, hold)
    except (NotSent, Unanswered, Remote) as error:
        raise refusal(error, "the warehouse") from error


async def authorise(bus: Bus, charge: Charge) -> None:
    try:
        await bus.call(AUTHORISE, charge)
    except (NotSent, Unanswered, Remote) as error:
        raise refusal(error, "the bank") from error


def refusal(error: NotSent | Unanswered | Remote, who: str) -> Refused:
    """What the buyer hears: their own no, or that they cannot be reached."""
    if isinstance(error, Remote) and error.status < 500:
        return Refused(error.detail, status=error.status)
    return Refused(f"{who} does not answer; you are not charged, try later", status=503)
