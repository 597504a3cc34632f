"""FastStream on RabbitMQ, as its documentation shows it; its log of each message is off."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from brokers_work import PREFETCH, Handle, Publish, Task, coroutines, handler
from fast_depends.msgspec import MsgSpecSerializer
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue


def open_broker(task: Task) -> RabbitBroker:
    """With msgspec for its types, as all others; with pydantic, its default, it takes as long."""
    channel = Channel(prefetch_count=PREFETCH)
    serializer = MsgSpecSerializer()
    return RabbitBroker(task.url, default_channel=channel, serializer=serializer, logger=None)


@asynccontextmanager
async def publisher(task: Task) -> AsyncGenerator[Publish]:
    async with open_broker(task) as broker:
        yield partial(broker.publish, queue=task.place, persist=True)


@asynccontextmanager
async def consumer(task: Task, handle: Handle) -> AsyncGenerator[None]:
    broker = open_broker(task)
    broker.subscriber(RabbitQueue(task.place, declare=False))(handler(task, handle))
    async with broker:
        await broker.start()
        yield


WORK = coroutines(publisher, consumer)
