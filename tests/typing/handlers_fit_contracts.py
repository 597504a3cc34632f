"""Types flow from the contract to handler and caller: checked by mypy and pyright, never run.

Every line that is marked must be an error for both checkers; a test takes the marks away and
compares. An unmarked error, or a mark that silences nothing, fails the checkers themselves.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, assert_type

from callcast import Bus, Context, Event, Operation, Service, Struct, Transaction, outbox


class Order(Struct):
    id: str
    sku: str


@dataclass
class Price:
    cents: int


class Address(TypedDict):
    street: str


STOCK = Operation("inventory.stock", request=str, response=int, idempotent=True)
QUOTE = Operation("inventory.quote", Order, Price, idempotent=True)
FIND = Operation("inventory.find", str, Order | None, idempotent=True)
RESERVE = Operation("inventory.reserve", Order, None, once=True)
MOVE = Operation("inventory.move", Address, list[str], idempotent=True)
ANY = Operation("inventory.any", int | str | None, dict[str, int], idempotent=True)
PLACED = Event("orders.placed", Order, key=lambda order: order.id)
COUNTED = Event("orders.counted", int | None)
QUOTED = Event("orders.quoted", Price)

inventory = Service("inventory")
mail = Service("mail")


class Pool:
    """What a lifespan might yield."""


# Handlers that fit.


@inventory.serves(STOCK)
async def stock(sku: str) -> int:
    return len(sku)


@inventory.serves(QUOTE)
async def quote(order: Order, context: Context) -> Price:
    return Price(len(order.sku) + context.attempt)


@inventory.serves(FIND)
async def find(sku: str, bus: Bus, context: Context) -> Order | None:
    return Order("o-1", sku) if await bus.call(STOCK, sku) and context.message_id else None


@inventory.serves(RESERVE)
async def reserve(order: Order, tx: Transaction) -> None:
    await tx.execute("insert into reserved(id) values (?)", order.id)


@inventory.serves(MOVE)
def move(address: Address) -> list[str]:
    return [address["street"]]


@inventory.serves(ANY)
async def anything(value: int | str | None, pool: Pool) -> dict[str, int]:
    return {str(value): id(pool)}


@mail.on(PLACED)
async def send(order: Order) -> None:
    assert_type(order.id, str)


@mail.on(PLACED, group="statistics")
def count(order: Order, context: Context) -> None:
    assert_type(context.attempt, int)


@mail.on(COUNTED)
async def counted(count: int | None) -> None:
    assert_type(count, int | None)


# Handlers that accept more, or promise more, than the contract asks: they fit too.


@mail.on(QUOTED)
async def quoted(price: object) -> str:
    return str(price)


wide = Service("inventory")


@wide.serves(FIND)
async def always(sku: str) -> Order:
    return Order("o-1", sku)


# Handlers that do not fit.

wrong = Service("inventory")


@wrong.serves(STOCK)  # type: ignore[arg-type]
async def takes_a_number(sku: int) -> int:
    return sku


@wrong.serves(STOCK)  # type: ignore[arg-type]
async def answers_text(sku: str) -> str:
    return sku


@wrong.serves(QUOTE)  # type: ignore[arg-type]
def plain_answers_text(order: Order) -> str:
    return order.id


@wrong.serves(FIND)  # type: ignore[arg-type]
async def answers_another_none(sku: str) -> int | None:
    return len(sku)


@wrong.serves(ANY)  # type: ignore[arg-type]
async def takes_less_of_the_union(value: int) -> dict[str, int]:
    return {"value": value}


@wrong.serves(STOCK)  # type: ignore[arg-type]
async def takes_nothing() -> int:
    return 7


@wrong.serves(RESERVE)  # type: ignore[arg-type]
async def answers_what_nobody_asked(order: Order, tx: Transaction) -> str:
    return f"{order.id} {tx}"


@wrong.on(PLACED)  # type: ignore[arg-type]
async def hears_a_price(price: Price) -> None:
    assert_type(price.cents, int)


@wrong.on(COUNTED)  # type: ignore[arg-type]
async def forgets_none(count: int) -> None:
    assert_type(count, int)


# Callers.


async def callers_that_fit(bus: Bus, tx: Transaction, session: object) -> None:
    assert_type(await bus.call(STOCK, "tea"), int)
    assert_type(await bus.call(QUOTE, Order("o-1", "tea"), deadline=0.5), Price)
    assert_type(await bus.call(FIND, "tea"), Order | None)
    assert_type(await bus.call(MOVE, Address(street="Elm")), list[str])
    assert_type(await bus.request(QUOTE, Order("o-1", "tea")), Price)
    assert_type(await bus.cast(QUOTE, Order("o-1", "tea"), reply_to=QUOTED), str)
    assert_type(await bus.publish(PLACED, Order("o-1", "tea"), delay=5.0), str)
    assert_type(await bus.publish(COUNTED, None), str)
    assert_type(await tx.publish(PLACED, Order("o-1", "tea")), str)
    assert_type(await tx.cast(RESERVE, Order("o-1", "tea")), str)
    outbox.add(session, PLACED, Order("o-1", "tea"))


async def callers_that_do_not(bus: Bus, tx: Transaction, session: object) -> None:
    await bus.call(STOCK, 7)  # type: ignore[misc]
    await bus.call(QUOTE, Price(1))  # type: ignore[misc]
    await bus.call(ANY, 1.5)  # type: ignore[misc]
    await bus.call(MOVE, {"road": "Elm"})  # type: ignore[misc]
    await bus.call(PLACED, Order("o-1", "tea"))  # type: ignore[arg-type]
    await bus.call("inventory.stock", "tea")  # type: ignore[arg-type]
    await bus.call(STOCK, "tea", timeout=1.0)  # type: ignore[call-arg]
    await bus.cast(RESERVE, "tea")  # type: ignore[misc]
    await bus.cast(QUOTE, Order("o-1", "tea"), reply_to=COUNTED)  # type: ignore[misc]
    await bus.request(STOCK, None)  # type: ignore[misc]
    await bus.publish(PLACED, "tea")  # type: ignore[misc]
    await bus.publish(COUNTED, "tea")  # type: ignore[misc]
    await bus.publish(STOCK, "tea")  # type: ignore[arg-type]
    await bus.publish(PLACED, Order("o-1", "tea"), later=5.0)  # type: ignore[call-arg]
    await tx.publish(PLACED, Price(1))  # type: ignore[misc]
    outbox.add(session, PLACED, Price(1))  # type: ignore[misc]
    number: str = await bus.call(STOCK, "tea")  # type: ignore[arg-type]
    assert_type(number, str)


Event("orders.placed", Order, key=lambda order: order.nothing)  # type: ignore[attr-defined]
Event("orders.placed", Order, on_dead="forget")  # type: ignore[arg-type]
Operation("inventory.stock", str)  # type: ignore[call-arg]
