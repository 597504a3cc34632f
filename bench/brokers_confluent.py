"""confluent-kafka under asyncio and nothing around it: the floor that an adapter stands on.

No coroutine and no future per message: a thread polls, and tells the loop of all delivery reports
of a poll at once; records come in batches, and each batch is committed when it is handled.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from work import Count, Order, decode, encode, timed

POLL = 0.1
"""Seconds of one poll that finds nothing."""


class Window:
    """Publishes with so many unreported at a time."""

    def __init__(self, task: Task, *, is_waited_for: bool) -> None:
        settings = {"bootstrap.servers": task.url, "acks": "all", "enable.idempotence": True}
        if is_waited_for:
            settings["linger.ms"] = 0  # by default it waits 5 ms for more: many in flight need that
        self._topic = task.place
        self._producer = Producer(settings)
        self._loop = asyncio.get_running_loop()
        self._waiting: Iterator[Order] = iter(())
        self._limit = self._open = 0
        self._is_done = asyncio.Event()
        self._reported = 0  # of the polling thread alone
        self._is_closed = False
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    async def send(self, work: list[Order], in_flight: int) -> None:
        """Publish all of it; returns when all is reported as stored."""
        self._waiting, self._limit = iter(work), in_flight
        self._is_done.clear()
        self._refill()
        await self._is_done.wait()

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()

    def _refill(self) -> None:
        produce, topic = self._producer.produce, self._topic
        while self._open < self._limit:
            each = next(self._waiting, None)
            if each is None:
                break
            produce(topic, encode(each), on_delivery=self._on_report)
            self._open += 1
        if not self._open:
            self._is_done.set()

    def _on_report(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        self._reported += 1

    def _poll(self) -> None:
        while not self._is_closed:
            self._producer.poll(POLL)
            if self._reported:
                self._loop.call_soon_threadsafe(self._on_reports, self._reported)
                self._reported = 0

    def _on_reports(self, count: int) -> None:
        self._open -= count
        self._refill()


async def publish(task: Task) -> Result:
    window = Window(task, is_waited_for=task.in_flight == 1)
    await window.send(work_of(task, task.warm), IN_FLIGHT)
    work = work_of(task, task.count)
    with timed() as watch:
        await window.send(work, task.in_flight)
    window.close()
    return told(watch)


async def send(task: Task) -> Result:
    window = Window(task, is_waited_for=True)
    await at_a_rate(task.count, lambda order: window.send([order], 1))
    window.close()
    return {}


class Batches:
    """Hands over what comes, batch by batch; each is committed while the next is on its way."""

    def __init__(self, task: Task) -> None:
        self._topic = task.place
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

    async def until(self, is_over: asyncio.Event, handle: Handle) -> None:
        """Returns when all that was handled is committed."""
        coming = self._fetch()
        while True:
            batch = await coming
            coming = self._fetch()
            for record in batch:
                if (error := record.error()) is not None:
                    raise KafkaException(error)
                handle(decode(record.value() or b""))
            if is_over.is_set():
                break
            if batch:
                self._commit(batch, is_last=False)
        self._commit(batch, is_last=True)
        self._coming = coming

    async def close(self) -> None:
        await self._coming
        self._thread.shutdown()
        self._consumer.close()

    def _fetch(self) -> asyncio.Future[list[Message]]:
        return self._loop.run_in_executor(self._thread, self._take)

    def _take(self) -> list[Message]:
        """The next one, with all that is there already."""
        first = self._consumer.poll(POLL)
        return [] if first is None else [first, *self._consumer.consume(PREFETCH - 1, 0)]

    def _commit(self, batch: list[Message], *, is_last: bool) -> None:
        offset = batch[-1].offset()
        assert offset is not None
        places = [TopicPartition(self._topic, 0, offset + 1)]
        self._consumer.commit(offsets=places, asynchronous=not is_last)


async def consume(task: Task) -> Result:
    counted = Count(task.count)
    batches = Batches(task)
    await batches.until(counted.is_over, lambda _order: counted.one())
    counted.watch.stop()
    await batches.close()
    return told(counted.watch)


async def listen(task: Task) -> Result:
    lateness = Lateness(task.count)
    batches = Batches(task)
    ready()
    await batches.until(lateness.is_over, lateness.one)
    await batches.close()
    return lateness.told


WORK = {
    "publish": run_in_loop(publish),
    "consume": run_in_loop(consume),
    "send": run_in_loop(send),
    "listen": run_in_loop(listen),
}
