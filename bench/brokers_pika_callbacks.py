"""pika's own AsyncioConnection and nothing around it, no coroutine and no future per message.

Confirms are counted, and one acknowledgement with `multiple` goes for all that came in one turn of
the loop. A program under asyncio needs more than that: `brokers_pika`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from brokers_work import (
    IN_FLIGHT,
    PREFETCH,
    Handle,
    Lateness,
    Result,
    Task,
    at_a_rate,
    ready,
    run_in_loop,
    told,
    work_of,
)
from pika import BasicProperties, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from work import Count, Order, decode, encode, timed

OnMessage = Callable[[Channel, Any, BasicProperties, bytes], None]


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Channel]:
    loop = asyncio.get_running_loop()
    is_open, is_closed = loop.create_future(), loop.create_future()

    def failed(_connection: object, error: BaseException) -> None:
        is_open.set_exception(error)

    connection = AsyncioConnection(
        URLParameters(url),
        on_open_callback=lambda opened: opened.channel(on_open_callback=is_open.set_result),
        on_open_error_callback=failed,
        on_close_callback=lambda _connection, why: is_closed.set_result(why),
    )
    yield await is_open
    connection.close()
    await is_closed


class Window:
    """Publishes with so many unconfirmed at a time."""

    def __init__(self, channel: Channel, task: Task) -> None:
        self._channel = channel
        self._to = (task.exchange, task.place)
        self._is_mandatory = bool(task.exchange)
        self._properties = BasicProperties("application/json", headers=task.headers or None)
        self._properties.delivery_mode = 2
        self._sent = self._low = self._limit = 0
        self._early: set[int] = set()
        """Confirmed before what was sent before them; all up to `_low` are."""
        self._waiting: Iterator[Order] = iter(())
        self._is_done = asyncio.Event()

    async def start(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self._channel.confirm_delivery(self._on_confirm, done.set_result)
        await done

    async def send(self, work: list[Order], in_flight: int) -> None:
        """Publish all of it; returns when all is confirmed."""
        self._waiting, self._limit = iter(work), in_flight
        self._is_done.clear()
        self._refill()
        await self._is_done.wait()

    def _refill(self) -> None:
        publish, (exchange, key) = self._channel.basic_publish, self._to
        properties, is_mandatory = self._properties, self._is_mandatory
        while self._sent - self._low - len(self._early) < self._limit:
            each = next(self._waiting, None)
            if each is None:
                break
            publish(exchange, key, encode(each), properties, is_mandatory)
            self._sent += 1
        if self._sent == self._low:
            self._is_done.set()

    def _on_confirm(self, frame: Any) -> None:
        answer = frame.method
        if answer.NAME != "Basic.Ack":
            raise RuntimeError(f"the broker answered {answer}")
        if answer.multiple:
            self._low = answer.delivery_tag
            self._early = {tag for tag in self._early if tag > self._low}
        else:
            self._early.add(answer.delivery_tag)
        while self._low + 1 in self._early:
            self._low += 1
            self._early.remove(self._low)
        self._refill()


async def publish(task: Task) -> Result:
    async with opened(task.url) as channel:
        window = Window(channel, task)
        await window.start()
        await window.send(work_of(task, task.warm), IN_FLIGHT)
        work = work_of(task, task.count)
        with timed() as watch:
            await window.send(work, task.in_flight)
    return told(watch)


async def send(task: Task) -> Result:
    async with opened(task.url) as channel:
        window = Window(channel, task)
        await window.start()
        await at_a_rate(task.count, lambda order: window.send([order], 1))
    return {}


class Acks:
    """One acknowledgement for all that was handled in a turn of the loop."""

    def __init__(self, channel: Channel, handle: Handle) -> None:
        self._channel = channel
        self._handle = handle
        self._tag = 0
        self._soon = asyncio.get_running_loop().call_soon
        self._is_due = False

    def on_message(self, _channel: Channel, method: Any, _properties: object, body: bytes) -> None:
        if not self._is_due:
            self._is_due = True
            self._soon(self._acknowledge)  # before whoever waits for the last one goes on
        self._handle(decode(body))
        self._tag = method.delivery_tag

    def _acknowledge(self) -> None:
        self._is_due = False
        self._channel.basic_ack(self._tag, multiple=True)


async def begin(channel: Channel, task: Task, on_message: OnMessage) -> None:
    loop = asyncio.get_running_loop()
    limited, begun = loop.create_future(), loop.create_future()
    channel.basic_qos(prefetch_count=PREFETCH, callback=limited.set_result)
    await limited
    channel.basic_consume(task.place, on_message, callback=begun.set_result)
    await begun


async def consume(task: Task) -> Result:
    counted = Count(task.count)
    async with opened(task.url) as channel:
        await begin(channel, task, Acks(channel, lambda _order: counted.one()).on_message)
        await counted.is_over.wait()
    counted.watch.stop()
    return told(counted.watch)


async def listen(task: Task) -> Result:
    lateness = Lateness(task.count)
    async with opened(task.url) as channel:
        await begin(channel, task, Acks(channel, lateness.one).on_message)
        ready()
        await lateness.is_over.wait()
    return lateness.told


WORK = {
    "publish": run_in_loop(publish),
    "consume": run_in_loop(consume),
    "send": run_in_loop(send),
    "listen": run_in_loop(listen),
}
