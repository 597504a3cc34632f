"""callcast on the embedded broker, through its public interface and with its defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from work import Count, Order, Stopwatch, order, orders, timed

from callcast import Bus, Event, Service

IN_FLIGHT = 500
SLOW = "c-slow"
SLOW_SECONDS = 0.005
PLACED = Event("orders.placed", Order)
PLACED_KEYED = Event("orders.placed.keyed", Order, key=lambda order: order.customer)

Handle = Callable[[Order], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """A kind of consumer."""

    event: Event[Order] = PLACED
    groups: int = 1
    suspends: bool = False

    def service(self, count: Count) -> Service:
        service = Service("warehouse")
        for number in range(self.groups):
            service.on(self.event, group=f"g{number}")(self._handler(count))
        return service

    def _handler(self, count: Count) -> Handle:
        async def handle(_order: Order) -> None:
            count.one()

        async def handle_and_suspend(_order: Order) -> None:
            await asyncio.sleep(0)
            count.one()

        return handle_and_suspend if self.suspends else handle


def url(path: Path) -> str:
    return f"sqlite:///{path}/callcast.db"


async def subscribe(path: Path, case: Case) -> None:
    """Let the groups exist, so that what is published is kept for them."""
    async with Bus(url(path), services=[case.service(Count(0))]):
        return


async def publish(
    path: Path, case: Case, work: Sequence[Order], *, in_flight: int = IN_FLIGHT
) -> Stopwatch:
    """Publish `work` with so many awaited at a time."""
    async with Bus(url(path), name="shop") as bus:
        waiting = iter(work)

        async def publisher() -> None:
            for each in waiting:
                await bus.publish(case.event, each)

        with timed() as watch:
            async with asyncio.TaskGroup() as group:
                for _ in range(in_flight):
                    group.create_task(publisher())
    return watch


async def consume(path: Path, case: Case, count: int) -> Stopwatch:
    """From the first message handled until all are settled, which leaving the bus waits for."""
    counted = Count(count * case.groups)
    async with Bus(url(path), services=[case.service(counted)]):
        await counted.is_over.wait()
    counted.watch.stop()
    return counted.watch


async def both(path: Path, case: Case, count: int) -> dict[str, float]:
    """Publish, then consume."""
    await subscribe(path, case)
    sent = await publish(path, case, orders(count))
    done = await consume(path, case, count)
    deliveries = count * case.groups
    return {
        "publish": count / sent.wall,
        "publish cpu": sent.cpu * 10_000 / count,
        "consume": deliveries / done.wall,
        "consume cpu": done.cpu * 10_000 / deliveries,
    }


async def await_each(path: Path, count: int) -> float:
    """Messages a second when each is durable before the next is published."""
    await subscribe(path, Case())
    watch = await publish(path, Case(), orders(count), in_flight=1)
    return count / watch.wall


async def others(path: Path, count: int, *, is_slow: bool) -> float:
    """Seconds until `count` messages of many keys are handled.

    When `is_slow`, as many of one key lie between them, each of which takes its handler 5 ms.
    """
    counted = Count(count)
    service = Service("warehouse")

    @service.on(PLACED_KEYED, group="g0")
    async def handle(order: Order) -> None:
        if order.customer == SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        else:
            counted.one()

    await subscribe(path, Case(PLACED_KEYED))
    work = orders(count)
    if is_slow:
        slow = partial(order, customer=SLOW)
        work = [each for number, fast in enumerate(work) for each in (fast, slow(number))]
    await publish(path, Case(PLACED_KEYED), work)
    async with Bus(url(path), services=[service]):
        with timed() as watch:
            await counted.is_over.wait()
    return watch.wall
