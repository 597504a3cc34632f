"""The server that a bench is run against, and a look from outside at what lies in it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pika
from brokers_callcast import GROUP

from callcast.brokers.rabbitmq.names import Names
from callcast.ports.broker import Source

COMMAND = Path(__file__).parents[1] / "scripts" / "servers"
PATIENCE, LOOK = 10.0, 0.1
"""Seconds until a count must be so, and between two looks."""
CLASSIC: dict[str, str | int | bool] = {"x-queue-type": "classic"}


@contextmanager
def served(kind: str, url: str = "") -> Iterator[tuple[str, str]]:
    """The URL and the version of a server of that kind that nobody else uses, or of that URL."""
    if url:
        yield url, "given by its URL"
        return
    instance = ["--instance", f"bench-{os.getpid()}"]
    holder = ["--for", str(os.getpid())]
    told = json.loads(_servers("start", kind, *instance, *holder, "-o", "json"))
    (server,) = told["servers"]
    try:
        yield server["url"], server["version"]
    finally:
        _servers("stop", kind, *instance, *holder)


def _servers(*arguments: str) -> str:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return done.stdout


def unique(name: str) -> str:
    """A topic or queue that no other run has."""
    return f"bench.{secrets.token_hex(3)}.{name}"


def quorum_arguments(place: str) -> dict[str, str | int | bool]:
    """Those of callcast's own work queue, so that all contenders have the same."""
    names = Names(Source(place, GROUP))
    return dict(names.arguments(work_queue(place)))


def work_queue(place: str) -> str:
    """Where callcast's group has its messages."""
    (queue,) = Names(Source(place, GROUP)).work
    return queue


def declare(url: str, queue: str, arguments: Mapping[str, str | int | bool]) -> None:
    with _channel(url) as channel:
        channel.queue_declare(queue, durable=True, arguments=dict(arguments))


def must_hold(url: str, queue: str, count: int, *, may_be_left: int = 0) -> None:
    """So many messages lie there that nobody has: what was handled but not acknowledged does too.

    The server counts behind what it has confirmed and behind a connection's end, but not for long.
    Where so many more may be left by who has ended, those are removed.
    """
    end = time.monotonic() + PATIENCE
    with _channel(url) as channel:
        while (found := channel.queue_declare(queue, passive=True).method.message_count) != count:
            if count == 0 and found <= may_be_left:
                channel.queue_purge(queue)
            elif time.monotonic() > end:
                raise RuntimeError(f"{found} messages in {queue}, where {count} should be")
            time.sleep(LOOK)


def bind(url: str, queue: str, exchange: str) -> None:
    """Have all that is published to this topic exchange come to that queue."""
    with _channel(url) as channel:
        channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_bind(queue, exchange, "#")


def purge(url: str, queue: str) -> None:
    with _channel(url) as channel:
        channel.queue_purge(queue)


def headers_of_one(url: str, queue: str) -> dict[str, str]:
    """What a message there has beside its body; it is taken."""
    with _channel(url) as channel:
        _, properties, _ = channel.basic_get(queue, auto_ack=True)
        return {name: str(value) for name, value in (properties.headers or {}).items()}


@contextmanager
def _channel(url: str) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()
