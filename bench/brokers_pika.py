"""pika's own AsyncioConnection with the least around it that a program under asyncio needs.

A future for each publish, which its confirm answers; a task for each message, so that handlers run
side by side, and one acknowledgement for all that are over in a turn of the loop, with none left
open before them. With callbacks alone it does less: `brokers_pika_callbacks`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from brokers_pika_callbacks import begin, opened
from brokers_work import Handle, Publish, Task, coroutines, handler
from pika import BasicProperties
from pika.channel import Channel
from work import Order, decode, encode


class Confirms:
    """Publishes, and answers for each when it is confirmed."""

    def __init__(self, channel: Channel, task: Task) -> None:
        self._channel = channel
        self._place = task.place
        self._properties = BasicProperties("application/json", delivery_mode=2)
        self._sent = 0
        self._open: dict[int, asyncio.Future[None]] = {}  # oldest first
        self._future = asyncio.get_running_loop().create_future

    async def start(self) -> None:
        done = self._future()
        self._channel.confirm_delivery(self._on_confirm, done.set_result)
        await done

    def publish(self, order: Order) -> Awaitable[None]:
        confirmed: asyncio.Future[None] = self._future()
        self._channel.basic_publish("", self._place, encode(order), self._properties)
        self._sent += 1
        self._open[self._sent] = confirmed
        return confirmed

    def _on_confirm(self, frame: Any) -> None:
        answer = frame.method
        if answer.NAME != "Basic.Ack":
            raise RuntimeError(f"the broker answered {answer}")
        if not answer.multiple:
            self._open.pop(answer.delivery_tag).set_result(None)
            return
        for tag in [tag for tag in self._open if tag <= answer.delivery_tag]:
            self._open.pop(tag).set_result(None)


@asynccontextmanager
async def publisher(task: Task) -> AsyncGenerator[Publish]:
    async with opened(task.url) as channel:
        confirms = Confirms(channel, task)
        await confirms.start()
        yield confirms.publish


class Tasks:
    """Handles each message in a task of its own."""

    def __init__(self, channel: Channel, task: Task, handle: Handle) -> None:
        self._channel = channel
        self._handler = handler(task, handle)
        self._loop = asyncio.get_running_loop()
        self._running: deque[tuple[int, asyncio.Task[None]]] = deque()  # oldest first
        self._is_due = False

    def on_message(self, _channel: Channel, method: Any, _properties: object, body: bytes) -> None:
        running = self._loop.create_task(self._handler(decode(body)))
        self._running.append((method.delivery_tag, running))
        running.add_done_callback(self._on_done)

    def _on_done(self, done: asyncio.Task[None]) -> None:
        done.result()  # a handler that fails ends the bench
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._is_due = False
        tag = 0
        while self._running and self._running[0][1].done():
            tag, _ = self._running.popleft()
        if tag:
            self._channel.basic_ack(tag, multiple=True)

    async def rest(self) -> None:
        """Until all that was handled is acknowledged."""
        while self._running and self._running[0][1].done():
            await asyncio.sleep(0)


@asynccontextmanager
async def consumer(task: Task, handle: Handle) -> AsyncGenerator[None]:
    async with opened(task.url) as channel:
        tasks = Tasks(channel, task, handle)
        await begin(channel, task, tasks.on_message)
        yield
        await tasks.rest()


WORK = coroutines(publisher, consumer)
