"""A handler whose call only promises work: refused at start where it shows, never `Done` after."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from callcast import Bus, Event, Misuse, Operation, Remote, Service, Struct, Unanswered
from callcast.runtime.callables import Nature, nature
from callcast.testing import bus as service_bus


class Order(Struct):
    id: str


PLACED = Event("orders.placed", Order)
STOCK = Operation("inventory.stock", str, int, idempotent=True)

HANDLED: list[str] = []


@pytest.fixture(autouse=True)
def handled() -> list[str]:
    HANDLED.clear()
    return HANDLED


async def pack(order: Order) -> None:
    HANDLED.append(order.id)


async def stream(order: Order) -> AsyncIterator[int]:
    HANDLED.append(order.id)
    yield 1


def items(order: Order) -> Iterator[int]:
    HANDLED.append(order.id)
    yield 1


class Streaming:
    async def __call__(self, order: Order) -> AsyncIterator[int]:
        yield 1


def unnamed(function: Callable[[Order], object]) -> Callable[[Order], object]:
    """A decorator that does not say what it wraps."""

    def wrapper(order: Order) -> object:
        return function(order)

    return wrapper


def named(function: Callable[[Order], object]) -> Callable[[Order], object]:
    @functools.wraps(function)
    def wrapper(order: Order) -> object:
        return function(order)

    return wrapper


def forgetful(function: Callable[[Order], object]) -> Callable[[Order], object]:
    """A decorator that forgot an `await`."""

    @functools.wraps(function)
    async def wrapper(order: Order) -> object:
        return function(order)

    return wrapper


def bridging(function: Callable[[Order], Awaitable[object]]) -> Callable[[Order], object]:
    """A decorator that runs the async function itself, though it says that it wraps one."""

    @functools.wraps(function)
    def wrapper(order: Order) -> object:
        HANDLED.append(order.id)
        return 7

    return wrapper


def hearing(function: Callable[[Order], object]) -> Service:
    service = Service("warehouse")
    service.on(PLACED)(function)
    return service


async def deaths(function: Callable[[Order], object]) -> list[str]:
    """Publish one order to this handler; why it is dead."""
    async with service_bus(hearing(function)) as bus:
        await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
        return [dead.headers["callcast-error-message"] for dead in await bus.dead()]


@pytest.mark.parametrize(
    "function",
    [stream, items, functools.partial(stream), Streaming(), named(stream), named(items)],
    ids=["async generator", "generator", "partial", "object", "wrapped", "wrapped generator"],
)
async def test_a_handler_with_a_yield_is_refused_at_start_with_its_place_and_the_fix(
    function: Callable[[Order], object],
) -> None:
    with pytest.raises(Misuse) as caught:
        async with Bus("memory://", services=[hearing(function)]):
            pass
    said = str(caught.value)
    assert f"({__file__}:" in said
    assert any(name in said for name in ("stream", "items", "Streaming.__call__"))
    assert "without 'yield'" in said


@pytest.mark.parametrize(
    "function",
    [
        unnamed(pack),
        lambda order: pack(Order(order.id)),
        unnamed(stream),
        unnamed(items),
        forgetful(pack),
    ],
    ids=["decorator", "lambda", "async generator", "generator", "no await"],
)
async def test_a_message_whose_handler_returned_what_nobody_runs_is_dead_and_never_done(
    function: Callable[[Order], object],
) -> None:
    reasons = await deaths(function)
    assert HANDLED == []
    assert len(reasons) == 1
    assert "nothing was done" in reasons[0]


async def test_a_call_whose_handler_returned_what_nobody_awaits_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service("inventory")

    async def counted(sku: str) -> int:
        HANDLED.append(sku)
        return 7

    def stock(sku: str) -> Awaitable[int]:
        return counted(sku)

    service.serves(STOCK)(stock)
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Remote) as caught:
            await bus.call(STOCK, "tea")
    assert caught.value.status == 500
    assert HANDLED == []
    assert "nothing was done" in caplog.text
    assert f"stock ({__file__}:" in caplog.text


@pytest.mark.parametrize(
    "function",
    [pack, named(pack), functools.partial(pack), functools.partial(named(pack))],
    ids=["plain", "wrapped", "partial", "partial of a wrapped one"],
)
async def test_a_decorator_that_says_that_it_wraps_an_async_function_is_awaited(
    function: Callable[[Order], object],
) -> None:
    assert await deaths(function) == []
    assert HANDLED == ["o-1"]


async def test_an_async_decorator_around_a_plain_function_is_awaited() -> None:
    def shelve(order: Order) -> None:
        HANDLED.append(order.id)

    @functools.wraps(shelve)
    async def wrapper(order: Order) -> None:
        shelve(order)

    assert await deaths(wrapper) == []
    assert HANDLED == ["o-1"]


async def test_a_plain_decorator_that_runs_an_async_function_itself_is_told_so() -> None:
    reasons = await deaths(bridging(pack))
    assert len(reasons) == 1
    assert "pack" in reasons[0]
    assert "returned int, which cannot be awaited" in reasons[0]


async def test_what_a_cancelled_plain_handler_still_returns_is_closed() -> None:
    let_go = threading.Event()
    left: list[Awaitable[None]] = []
    slow = Operation("inventory.slow", str, int, idempotent=True, deadline=0.05)
    service = Service("inventory")

    def stock(sku: str) -> Awaitable[None]:
        let_go.wait(30.0)
        left.append(pack(Order(sku)))
        return left[0]

    service.serves(slow)(stock)  # type: ignore[arg-type]  # no int: that is what is tried
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Unanswered):
            task = asyncio.ensure_future(bus.call(slow, "tea"))
            asyncio.get_running_loop().call_later(0.2, let_go.set)
            await task
    assert [inspect.getcoroutinestate(each) for each in left] == ["CORO_CLOSED"]  # type: ignore[arg-type]


def test_the_outermost_that_is_seen_decides_what_a_function_is() -> None:
    assert nature(pack) is Nature.ASYNC
    assert nature(named(pack)) is Nature.ASYNC
    assert nature(named(stream)) is Nature.STREAM
    assert nature(forgetful(stream)) is Nature.ASYNC
    assert nature(unnamed(pack)) is Nature.PLAIN
    assert nature(print) is Nature.PLAIN
    assert nature(Order) is Nature.PLAIN
