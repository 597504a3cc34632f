"""Parts for tests of RabbitMQ itself: who else is there, what a queue holds, what is waited for."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import time
import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import pika
from pika.adapters.blocking_connection import BlockingChannel
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.errors import Unavailable
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Consumer, Delivery, Source, Unsettled
from callcast.runtime.clock import AsyncioClock

T = TypeVar("T")

PATIENCE = 25.0
"""Seconds for what must happen soon."""
LOOK = 0.05
"""Seconds between two looks."""


def topic() -> str:
    """A name of its own."""
    return f"t{secrets.token_hex(4)}"


def message(name: str, to: str, *, key: str | None = None, body: bytes = b'"x"') -> Message:
    """A message with that id for that topic."""
    return Message(name, "tests", to, to, body, key)


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[RabbitBroker]:
    """A broker at that URL, closed at the end."""
    broker = RabbitBroker(url, clock=AsyncioClock())
    try:
        yield broker
    finally:
        await broker.close()


async def listening(broker: RabbitBroker, *, ordered: bool = False, lanes: int = 1) -> Source:
    """A new group of a new topic."""
    source = Source(topic(), "group", ordered=ordered, lanes=lanes)
    await broker.ensure([source.topic], [source])
    return source


async def fetched(consumer: Consumer, count: int, *, within: float = PATIENCE) -> list[Delivery]:
    """So many deliveries, unsettled; the broker may be away meanwhile."""
    found: list[Delivery] = []
    end = time.monotonic() + within
    while len(found) < count:
        left = end - time.monotonic()
        assert left > 0, f"{len(found)} of {count} came within {within:g} s"
        try:
            found += await consumer.fetch(count - len(found), left)
        except Unavailable:
            await asyncio.sleep(LOOK)  # it comes back by itself
    return found


async def handled(consumer: Consumer, *, quiet: float = 1.0) -> list[str]:
    """The ids of all that comes until nothing comes any more, settled as done.

    A broker that is away does not count as quiet.
    """
    ids: list[str] = []
    while True:
        try:
            batch = await consumer.fetch(500, quiet)
        except Unavailable:
            await asyncio.sleep(LOOK)
            continue
        if not batch:
            return ids
        ids += [one.message.id for one in batch]
        await consumer.settle([(one, DONE) for one in batch])


async def until(what: Callable[[], Awaitable[T] | T], *, within: float = PATIENCE) -> T:
    """Wait until this is true, and return it."""
    end = time.monotonic() + within
    while True:
        answer = what()
        found = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        assert time.monotonic() < end, f"it was not so within {within:g} s"
        await asyncio.sleep(LOOK)


@contextmanager
def stranger(url: str) -> Generator[BlockingChannel]:
    """A channel of plain pika: a program that knows nothing of callcast."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


VICTIM = """
import sys, pika
url, queue, prefetch = sys.argv[1], sys.argv[2], int(sys.argv[3])
channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
channel.basic_qos(prefetch_count=prefetch)
for count, _ in enumerate(channel.consume(queue, inactivity_timeout=20.0), 1):
    if count == prefetch:
        print("full", flush=True)
"""


def crash(url: str, queue: str, *, prefetch: int) -> None:
    """A process that takes so many messages of a queue and is killed with them."""
    argv = [sys.executable, "-c", VICTIM, url, queue, str(prefetch)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "full\n"
        child.kill()


def queues_of(own: OwnRabbitMq) -> dict[str, dict[str, object]]:
    """All queues of its vhost by name, as the management API tells of them."""
    path = "queues/" + urllib.parse.quote(own.vhost, safe="")
    found = own.manage("GET", path)
    assert isinstance(found, list)
    return {one["name"]: one for one in found}


def drop_connections(own: OwnRabbitMq, name: str = "") -> int:
    """Have the server close the connections of its vhost (of that name); how many there were."""
    found = own.manage("GET", "connections")
    assert isinstance(found, list)
    mine = [
        one
        for one in found
        if one.get("vhost") == own.vhost
        and name in str(one.get("client_properties", {}).get("connection_name", ""))
    ]
    for one in mine:
        own.manage("DELETE", "connections/" + urllib.parse.quote(str(one["name"]), safe=""))
    return len(mine)


def is_at_least(version: str, wanted: tuple[int, ...]) -> bool:
    """Whether a server's version is that one or a later one."""
    return tuple(int(each) for each in version.split(".")[: len(wanted)]) >= wanted


async def is_settled(consumer: Consumer, one: Delivery) -> bool:
    """Between two channels it is nobody's, for a moment."""
    try:
        await consumer.settle([(one, DONE)])
    except Unsettled:
        return False
    return True
