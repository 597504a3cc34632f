"""Parts for tests of RabbitMQ itself: who else is there, what a queue holds, what is waited for."""

from __future__ import annotations

import subprocess
import sys
import urllib.parse
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import pika
from broker_parts import fetched, handled, listening, message, topic, until
from pika.adapters.blocking_connection import BlockingChannel
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.outcome import DONE
from callcast.ports.broker import Consumer, Delivery, Unsettled
from callcast.runtime.clock import AsyncioClock

__all__ = [
    "crash",
    "drop_connections",
    "fetched",
    "handled",
    "is_at_least",
    "is_settled",
    "listening",
    "message",
    "opened",
    "queues_of",
    "stranger",
    "topic",
    "until",
]


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[RabbitBroker]:
    """A broker at that URL, closed at the end."""
    broker = RabbitBroker(url, clock=AsyncioClock())
    try:
        yield broker
    finally:
        await broker.close()


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
