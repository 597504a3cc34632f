"""FastStream on confluent-kafka, as its documentation shows it; its log of each message is off.

It commits after each handler, which is its way to acknowledge what was handled and nothing else;
with that it refuses `max_workers`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from brokers_work import Handle, Publish, Task, coroutines, handler
from fast_depends.msgspec import MsgSpecSerializer
from faststream import AckPolicy
from faststream.confluent import KafkaBroker, Topic


def open_broker(task: Task) -> KafkaBroker:
    """With msgspec for its types, as all others; with pydantic, its default, it takes as long."""
    return KafkaBroker(
        task.url, acks="all", enable_idempotence=True, serializer=MsgSpecSerializer(), logger=None
    )


@asynccontextmanager
async def publisher(task: Task) -> AsyncGenerator[Publish]:
    async with open_broker(task) as broker:
        yield partial(broker.publish, topic=task.place)


@asynccontextmanager
async def consumer(task: Task, handle: Handle) -> AsyncGenerator[None]:
    broker = open_broker(task)
    subscriber = broker.subscriber(
        Topic(task.place, declare=False),
        group_id=task.place,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
    )
    subscriber(handler(task, handle))
    async with broker:
        await broker.start()
        yield


WORK = coroutines(publisher, consumer)
