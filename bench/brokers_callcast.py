"""callcast on RabbitMQ or Kafka, through its public interface and with its defaults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from brokers_work import Handle, Publish, Result, Task, coroutines, handler, run_in_loop
from work import Order

from callcast import Amqp, Bus, Event, Service

GROUP = "warehouse"


def event(task: Task) -> Event[Order]:
    if task.is_foreign:
        amqp = Amqp(exchange="", routing_key=task.place, queue=task.place, may_drop=True)
        return Event(task.place, Order, amqp=amqp)
    if task.keys:
        return Event(task.place, Order, key=lambda order: order.customer)
    return Event(task.place, Order)


@asynccontextmanager
async def publisher(task: Task) -> AsyncGenerator[Publish]:
    to = event(task)
    async with Bus(task.url, name="shop") as bus:
        yield lambda order: bus.publish(to, order)


@asynccontextmanager
async def consumer(task: Task, handle: Handle) -> AsyncGenerator[None]:
    service = Service(GROUP)
    service.on(event(task))(handler(task, handle))
    async with Bus(task.url, services=[service]):
        yield


async def subscribe(task: Task) -> Result:
    """Let the group exist, so that what is published is kept for it."""
    async with consumer(task, lambda _order: None):
        await asyncio.sleep(0)
    return {}


WORK = {**coroutines(publisher, consumer), "subscribe": run_in_loop(subscribe)}
