"""All services of the wrong shop: each does what services do when nobody asks twice."""

from __future__ import annotations

from callcast import Bus, Remote, Service, Transaction, Unanswered
from shop_wrong.contracts import (
    BOOK,
    CHARGE,
    CHECKOUT,
    MAIL,
    PACK,
    PAY,
    PLACED,
    POINTS,
    PRICE,
    RESERVE,
    STATUS,
    Order,
)

orders = Service("orders", schema=["create table if not exists orders(id text, cents integer)"])
inventory = Service("inventory")
payments = Service("payments")
bank = Service("bank")
prices = Service("prices")
notifications = Service("notifications")
fulfilment = Service("fulfilment")
loyalty = Service("loyalty")
accounts = Service("accounts")
reports = Service("reports")

ATTEMPTS = 3
SERVICES = (
    orders, inventory, payments, bank, prices, notifications, fulfilment, loyalty, accounts, reports
)  # fmt: skip


@orders.serves(CHECKOUT)
async def checkout(order: Order, bus: Bus, tx: Transaction) -> str:
    cents = await bus.request(PRICE, order.sku)  # a read over two queues
    await bus.call(RESERVE, order)
    for attempt in range(ATTEMPTS):  # retries, above retries
        try:
            await bus.call(PAY, order)
        except (Remote, Unanswered):
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break
    await bus.call(MAIL, order)  # the buyer waits for the post office
    for tell in (PACK, POINTS, BOOK):  # one fact, told one by one
        await bus.call(tell, order)
    await tx.execute("insert into orders values (?, ?)", order.id, cents)
    await bus.publish(PLACED, order, now=True)  # a crash from here on: told, and not so
    return order.id


@orders.serves(STATUS)
async def status(order_id: str) -> str:
    return f"{order_id} is being placed"


@inventory.serves(RESERVE)
async def reserve(order: Order, bus: Bus) -> None:
    await bus.call(STATUS, order.id)  # who asks me is asked by me


@payments.serves(PAY)
async def pay(order: Order, bus: Bus) -> None:
    for attempt in range(ATTEMPTS):  # retries, below retries
        try:
            await bus.call(CHARGE, order)
        except (Remote, Unanswered):
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break


turns = 0


@bank.serves(CHARGE)
async def charge(_order: Order) -> None:
    """It is not always there, as banks are."""
    global turns  # noqa: PLW0603 - a bank that many orders share
    turns += 1
    if turns % 16 in {1, 2, 3}:
        raise ConnectionError("the bank is busy")


@prices.serves(PRICE)
async def price(sku: str) -> int:
    return 4 * len(sku)


@notifications.serves(MAIL)
async def mail(order: Order) -> None: ...


@fulfilment.serves(PACK)
async def pack(order: Order) -> None: ...


@loyalty.serves(POINTS)
async def points(order: Order) -> None: ...


@accounts.serves(BOOK)
async def book(order: Order) -> None: ...


@reports.on(PLACED)
async def count(order: Order) -> None: ...
