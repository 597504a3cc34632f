"""What a handler may ask for, and how a wrong one is refused at start."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from callcast import Bus, Context, Event, Misuse, Operation, Service, Struct, Transaction
from callcast.brokers.memory import MemoryBroker
from callcast.ports.broker import Traits
from callcast.runtime.clock import AsyncioClock


class Order(Struct):
    id: str


class Pool:
    """What a lifespan may yield."""


PLACED = Event("orders.placed", Order)
RESERVE = Operation("inventory.reserve", Order, int, once=True)
STOCK = Operation("inventory.stock", str, int, idempotent=True)


@asynccontextmanager
async def pool() -> AsyncIterator[Pool]:
    yield Pool()


async def start(service: Service) -> None:
    async with Bus("memory://", services=[service]):
        pass


async def refusal(service: Service) -> str:
    with pytest.raises(Misuse) as caught:
        await start(service)
    return str(caught.value)


async def test_everything_that_can_be_injected_arrives_in_any_order() -> None:
    service = Service("inventory", lifespan=pool)
    seen: list[object] = []

    @service.on(PLACED)
    async def pack(order: Order, tx: Transaction, bus: Bus, pool: Pool, context: Context) -> None:
        seen.extend([order, tx, bus, pool, context])

    async with Bus("memory://", services=[service]) as bus:
        id_ = await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
    order, tx, given, pool_, context = seen
    assert order == Order("o-1")
    assert isinstance(tx, Transaction)
    assert given is bus
    assert isinstance(pool_, Pool)
    assert isinstance(context, Context)
    assert (context.message_id, context.attempt, context.service) == (id_, 1, "inventory")


async def test_a_plain_function_runs_off_the_loop_with_its_context() -> None:
    service = Service("inventory")
    seen: list[tuple[str, str]] = []

    @service.on(PLACED)
    def pack(order: Order, context: Context) -> None:
        seen.append((order.id, context.name))

    async with Bus("memory://", services=[service]) as bus:
        await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
    assert seen == [("o-1", "orders.placed")]


async def test_an_unknown_annotation_names_parameter_function_and_line() -> None:
    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order, size: int) -> None: ...

    said = await refusal(service)
    assert "'size'" in said
    assert "pack" in said
    assert __file__ in said
    assert "lifespan yields" in said


async def test_a_parameter_without_annotation_is_refused() -> None:
    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order, size) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        ...

    assert "'size' has no annotation" in await refusal(service)


@pytest.mark.parametrize("annotation", ["NoSuchName", "Order.NoSuchName", "no name", "Order[int]"])
async def test_an_annotation_that_cannot_be_resolved_is_refused(annotation: str) -> None:
    service = Service("warehouse")

    async def pack(order: Order, pool: object) -> None: ...

    pack.__annotations__["pool"] = annotation
    service.on(PLACED)(pack)
    said = await refusal(service)
    assert "cannot be resolved" in said
    assert "pack (" in said
    assert f"{__file__}:" in said


async def test_a_handler_without_parameters_is_refused() -> None:
    service = Service("warehouse")

    async def pack() -> None: ...

    service.on(PLACED)(pack)  # type: ignore[arg-type]
    assert "must take the request" in await refusal(service)


async def test_star_args_are_refused() -> None:
    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order, *rest: object) -> None: ...

    assert "*args and **kwargs cannot" in await refusal(service)


async def test_keyword_only_parameters_are_refused() -> None:
    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order, *, context: Context) -> None: ...

    assert "keyword-only" in await refusal(service)


@pytest.mark.parametrize("kind", [Bus, Transaction])
async def test_an_asynchronous_object_in_a_plain_def_is_refused(kind: type) -> None:
    service = Service("warehouse")

    def pack(order: Order, given: object) -> None: ...

    pack.__annotations__["given"] = kind
    service.on(PLACED)(pack)
    said = await refusal(service)
    assert "in a plain def" in said
    assert "async def" in said


async def test_an_operation_that_is_once_needs_a_transaction() -> None:
    service = Service("inventory")

    @service.serves(RESERVE)
    async def reserve(order: Order) -> int:
        return 1

    assert "once=True" in await refusal(service)


async def test_a_transaction_without_a_database_names_the_handler_that_asks_for_it() -> None:
    class Elsewhere(MemoryBroker):
        @property
        def traits(self) -> Traits:
            return replace(super().traits, name="elsewhere")

    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order, tx: Transaction) -> None: ...

    broker = Elsewhere(AsyncioClock())
    with pytest.raises(Misuse) as caught:
        async with Bus(broker, services=[service]):
            pass
    await broker.close()
    said = str(caught.value)
    assert "pack (" in said
    assert f"{__file__}:" in said
    assert "Service('warehouse', database='sqlite:///...')" in said


async def test_two_handlers_of_one_operation_are_refused_with_both_places() -> None:
    service = Service("inventory")

    @service.serves(STOCK)
    async def stock(sku: str) -> int:
        return 1

    with pytest.raises(Misuse) as caught:

        @service.serves(STOCK)
        async def again(sku: str) -> int:
            return 2

    assert "stock" in str(caught.value)
    assert "again" in str(caught.value)


async def test_two_services_of_a_bus_cannot_handle_the_same_operation() -> None:
    one, other = Service("inventory"), Service("inventory")

    @one.serves(STOCK)
    async def stock(sku: str) -> int:
        return 1

    @other.serves(STOCK)
    async def again(sku: str) -> int:
        return 2

    with pytest.raises(Misuse) as caught:
        async with Bus("memory://", services=[one, other]):
            pass
    said = str(caught.value)
    assert "'inventory.stock' has two handlers in 'inventory'" in said
    assert "stock (" in said
    assert "again (" in said
    assert said.count(f"{__file__}:") == 2


async def test_two_services_of_a_bus_cannot_share_the_messages_of_one_group() -> None:
    one, other = Service("warehouse"), Service("warehouse")

    @one.on(PLACED, group="labels")
    async def label(order: Order) -> None: ...

    @other.on(PLACED, group="labels")
    async def again(order: Order) -> None: ...

    with pytest.raises(Misuse, match=r"two handlers in 'warehouse.labels': .*label .* and .*again"):
        async with Bus("memory://", services=[one, other]):
            pass


async def test_a_bus_is_not_given_the_same_service_twice() -> None:
    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order) -> None: ...

    with pytest.raises(Misuse, match="has two handlers"):
        async with Bus("memory://", services=[service, service]):
            pass


async def test_two_services_of_one_name_may_handle_different_things() -> None:
    one, other = Service("warehouse"), Service("warehouse")
    seen: list[str] = []

    @one.on(PLACED)
    async def pack(order: Order) -> None:
        seen.append("pack")

    @other.on(PLACED, group="labels")
    async def label(order: Order) -> None:
        seen.append("label")

    async with Bus("memory://", services=[one, other]) as bus:
        await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
    assert sorted(seen) == ["label", "pack"]


async def test_a_second_handler_of_an_event_needs_a_group() -> None:
    service = Service("warehouse")

    @service.on(PLACED)
    async def pack(order: Order) -> None: ...

    with pytest.raises(Misuse, match="group="):

        @service.on(PLACED)
        async def label(order: Order) -> None: ...

    @service.on(PLACED, group="labels")
    async def print_label(order: Order) -> None: ...

    assert [handler.group for handler in service.handlers] == ["warehouse", "warehouse.labels"]


async def test_an_operation_of_another_service_is_refused() -> None:
    with pytest.raises(Misuse, match="belongs to service 'inventory'"):
        Service("warehouse").serves(STOCK)


async def test_a_timeout_of_nothing_is_refused() -> None:
    service = Service("warehouse")
    with pytest.raises(Misuse, match="timeout"):

        @service.on(PLACED, timeout=0)
        async def pack(order: Order) -> None: ...


async def test_partials_and_callables_are_handlers_too() -> None:
    service = Service("inventory")
    seen: list[str] = []

    async def pack(shelf: str, order: Order) -> None:
        seen.append(f"{shelf}:{order.id}")

    service.on(PLACED)(functools.partial(pack, "left"))
    async with Bus("memory://", services=[service]) as bus:
        await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
    assert seen == ["left:o-1"]
