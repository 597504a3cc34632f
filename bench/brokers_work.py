"""What the contenders of ``bench/brokers.py`` are asked to do, each in a process of its own.

A contender is a module ``brokers_<name>`` with `WORK`: what it does for each part. Those that
publish and handle in coroutines only say how, and `coroutines` makes the parts of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import msgspec
from work import CUSTOMERS, Count, Order, Stopwatch, order, orders, timed

IN_FLIGHT = 500
"""Publishes awaited at a time."""
PREFETCH = 500
"""Of all peers; callcast has its default."""
WARM = 500
"""Messages published before the watch starts: connections are open then and caches full."""
EARLY = 40
"""Messages before the latency is measured."""
RATE = 200
"""Messages a second while the latency is measured."""


class Task(msgspec.Struct, frozen=True):
    """What one process is to do."""

    contender: str
    part: str
    """publish, consume, listen (tell how late each came) or send (at `RATE`)."""
    url: str
    place: str
    """The topic, or the queue."""
    count: int = 0
    in_flight: int = IN_FLIGHT
    arguments: dict[str, str | int | bool] = {}
    """What the queue was declared with."""
    exchange: str = ""
    """Where pika publishes to, mandatory; without it, AMQP's default exchange."""
    headers: dict[str, str] = {}
    """What pika's messages have."""
    is_foreign: bool = False
    """It lies in a queue that callcast did not make."""
    warm: int = WARM
    keys: int = 0
    """Messages of so many keys, each in order; 0: without keys."""
    handler_seconds: float = 0.0


Result: TypeAlias = Mapping[str, Any]
Work: TypeAlias = Mapping[str, Callable[[Task], Result]]
Publish: TypeAlias = Callable[[Order], Awaitable[object]]
Publisher: TypeAlias = Callable[[Task], AbstractAsyncContextManager[Publish]]
Handle: TypeAlias = Callable[[Order], None]
Handler: TypeAlias = Callable[[Order], Coroutine[Any, Any, None]]
Consumer: TypeAlias = Callable[[Task, Handle], AbstractAsyncContextManager[object]]
"""Handles what comes until it is left; then everything handled is acknowledged."""


def told(watch: Stopwatch) -> Result:
    return {"wall": watch.wall, "cpu": watch.cpu}


def late(order: Order) -> float:
    """Milliseconds since it was published."""
    return (time.monotonic_ns() - order.sent_ns) / 1e6


def ready() -> None:
    """Tell the bench that messages may come."""
    print("ready", flush=True)


class Lateness:
    """How late each of so many was, after the early ones."""

    def __init__(self, expected: int) -> None:
        self._seen: list[float] = []
        self.is_over = asyncio.Event()
        self._expected = EARLY + expected

    def one(self, order: Order) -> None:
        self._seen.append(late(order))
        if len(self._seen) == self._expected:
            self.is_over.set()

    @property
    def told(self) -> Result:
        return {"late": self._seen[EARLY:]}


def work_of(task: Task, count: int) -> list[Order]:
    return orders(count, task.keys or CUSTOMERS)


def handler(task: Task, handle: Handle) -> Handler:
    """A coroutine that handles one."""

    async def on(order: Order) -> None:
        handle(order)

    async def on_for_a_while(order: Order) -> None:
        await asyncio.sleep(task.handler_seconds)
        handle(order)

    return on_for_a_while if task.handler_seconds else on


async def at_a_rate(count: int, publish: Publish) -> None:
    """Publish so many, each as late as it has to be and not before the one ahead is durable."""
    for number in range(EARLY):
        await publish(order(number, sent_ns=time.monotonic_ns()))
    start = time.monotonic()
    for number in range(count):
        await asyncio.sleep(start + number / RATE - time.monotonic())
        await publish(order(number, sent_ns=time.monotonic_ns()))


def coroutines(publisher: Publisher, consumer: Consumer) -> Work:
    """All parts for a contender whose publish and handler are coroutines."""

    async def publish(task: Task) -> Result:
        async with publisher(task) as one:
            await _in_flight(one, work_of(task, task.warm), IN_FLIGHT)
            work = work_of(task, task.count)
            with timed() as watch:
                await _in_flight(one, work, task.in_flight)
        return told(watch)

    async def consume(task: Task) -> Result:
        counted = Count(task.count)
        async with consumer(task, lambda _order: counted.one()):
            await counted.is_over.wait()
        counted.watch.stop()
        return told(counted.watch)

    async def listen(task: Task) -> Result:
        lateness = Lateness(task.count)
        async with consumer(task, lateness.one):
            ready()
            await lateness.is_over.wait()
        return lateness.told

    async def send(task: Task) -> Result:
        async with publisher(task) as one:
            await at_a_rate(task.count, one)
        return {}

    parts = {"publish": publish, "consume": consume, "listen": listen, "send": send}
    return {name: run_in_loop(part) for name, part in parts.items()}


def run_in_loop(
    part: Callable[[Task], Coroutine[object, object, Result]],
) -> Callable[[Task], Result]:
    return lambda task: asyncio.run(part(task))


async def _in_flight(publish: Publish, work: list[Order], in_flight: int) -> None:
    waiting = iter(work)

    async def publisher() -> None:
        for each in waiting:
            await publish(each)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(publisher())
