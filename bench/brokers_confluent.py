"""confluent-kafka under asyncio with the least around it: the floor that an adapter stands on.

A thread polls and tells the loop of all delivery reports of a poll at once, each of which answers
the future of who published; records come in batches, each record is handled in a task of its own,
so that handlers run side by side, and a batch is committed when all of it is handled, while the
next is on its way. `brokers_confluent_batches` handles one after the other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from brokers_work import PREFETCH, Handle, Publish, Task, coroutines, handler
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from work import Order, decode, encode

POLL = 0.01
"""Seconds of one poll that finds nothing."""
Report = tuple[asyncio.Future[None], KafkaError | None]


class Reports:
    """Publishes, and answers for each when it is stored."""

    def __init__(self, task: Task) -> None:
        settings = {"bootstrap.servers": task.url, "acks": "all", "enable.idempotence": True}
        if task.in_flight == 1:
            settings["linger.ms"] = 0  # by default it waits 5 ms for more: many in flight need that
        self._topic = task.place
        self._producer = Producer(settings)
        self._loop = asyncio.get_running_loop()
        self._told: list[Report] = []  # of the polling thread alone
        self._is_closed = False
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def publish(self, order: Order) -> Awaitable[None]:
        stored: asyncio.Future[None] = self._loop.create_future()
        report = partial(self._report, stored)
        self._producer.produce(self._topic, encode(order), on_delivery=report)
        return stored

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()

    def _report(
        self, stored: asyncio.Future[None], error: KafkaError | None, _message: Message
    ) -> None:
        self._told.append((stored, error))

    def _poll(self) -> None:
        while not self._is_closed:
            self._producer.poll(POLL)
            if self._told:
                self._loop.call_soon_threadsafe(_answer, self._told)
                self._told = []


def _answer(reports: list[Report]) -> None:
    for stored, error in reports:
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(KafkaException(error))


@asynccontextmanager
async def publisher(task: Task) -> AsyncGenerator[Publish]:
    reports = Reports(task)
    yield reports.publish
    reports.close()


class Batches:
    """Handles what comes, batch by batch."""

    def __init__(self, task: Task, handle: Handle) -> None:
        self._topic = task.place
        self.handler = handler(task, handle)
        self._consumer = Consumer(
            {
                "bootstrap.servers": task.url,
                "group.id": task.place,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._consumer.subscribe([task.place])
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.get_running_loop()
        self._is_left = False

    async def run(self) -> None:
        """Until it is left; then all that was handled is committed."""
        last: Message | None = None
        coming = self._fetch()
        while not self._is_left:
            batch = await coming
            coming = self._fetch()
            await self.handle_all([_order(record) for record in batch])
            if batch:
                last = batch[-1]
                self._consumer.commit(offsets=self._after(last), asynchronous=True)
        if last is not None:
            self._consumer.commit(offsets=self._after(last), asynchronous=False)
        await coming  # what was fetched and is not handled comes again

    async def handle_all(self, orders: list[Order]) -> None:
        """Returns when all are handled."""
        create = self._loop.create_task
        for task in [create(self.handler(order)) for order in orders]:
            await task

    async def leave(self, running: asyncio.Task[None]) -> None:
        self._is_left = True
        await running
        self._thread.shutdown()
        self._consumer.close()

    def _fetch(self) -> asyncio.Future[list[Message]]:
        return self._loop.run_in_executor(self._thread, self._take)

    def _take(self) -> list[Message]:
        """The next one, with all that is there already."""
        first = self._consumer.poll(POLL)
        return [] if first is None else [first, *self._consumer.consume(PREFETCH - 1, 0)]

    def _after(self, record: Message) -> list[TopicPartition]:
        offset = record.offset()
        assert offset is not None
        return [TopicPartition(self._topic, 0, offset + 1)]


def _order(record: Message) -> Order:
    if (error := record.error()) is not None:
        raise KafkaException(error)
    return decode(record.value() or b"")


@asynccontextmanager
async def running(batches: Batches) -> AsyncGenerator[None]:
    """Until it is left."""
    run = asyncio.create_task(batches.run())
    yield
    await batches.leave(run)


WORK = coroutines(publisher, lambda task, handle: running(Batches(task, handle)))
