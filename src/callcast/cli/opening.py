"""Opening the broker that a command works on."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import click

from callcast.cli.failure import Failure, Unreachable
from callcast.ports.broker import Broker
from callcast.ports.clock import Clock
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.settings import read_table

F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R")


def broker_option(function: F) -> F:
    """``--broker URL``; defaults to what a bus started in this folder would use."""
    return click.option(
        "--broker",
        "url",
        metavar="URL",
        help="The broker, such as sqlite:///shop.db or amqp://host/vhost. Defaults to"
        " CALLCAST_BROKER, then to [tool.callcast] of pyproject.toml or callcast.toml in this"
        " folder.",
    )(function)


def chosen(url: str | None) -> str:
    """The URL that was given or configured; a `Failure` when there is none to look at from here."""
    found = url or read_table(Path.cwd()).broker
    if found is None:
        raise Failure("no broker is named", fix="--broker sqlite:///FILE, or set CALLCAST_BROKER")
    if urlsplit(found).scheme == "memory":
        raise Failure(
            "a memory:// broker lives inside its own process: nothing can be seen from outside",
            fix="--broker sqlite:///FILE",
        )
    return found


def is_absent(url: str) -> bool:
    """Whether it names a file that is not there."""
    return urlsplit(url).scheme == "sqlite" and not file_of(url).exists()


def existing(url: str) -> str:
    """The same URL, once its file is known to exist: looking must not create one."""
    if is_absent(url):
        raise Unreachable(
            f"there is no broker file {file_of(url)}",
            fix="callcast run MODULE:NAME --broker URL makes it; or name another --broker",
        )
    return url


def file_of(url: str) -> Path:
    """The file of a ``sqlite:`` URL."""
    return Path(registry.sqlite_path(url))


@asynccontextmanager
async def opened(url: str, clock: Clock) -> AsyncGenerator[Broker]:
    """The broker behind an existing file or server, closed at the end."""
    async with _opened(existing(url), clock) as broker:
        yield broker


@asynccontextmanager
async def _opened(url: str, clock: Clock) -> AsyncGenerator[Broker]:
    broker = registry.open_broker(url, clock)
    try:
        yield broker
    finally:
        await broker.close()


def on_broker(url: str | None, work: Callable[[Broker, Clock], Coroutine[object, object, R]]) -> R:
    """Run `work` on the chosen broker in an event loop of its own."""
    return _run(existing(chosen(url)), work)


def on_broker_to_be(
    url: str | None, work: Callable[[Broker, Clock], Coroutine[object, object, R]], *, makes: bool
) -> R:
    """The same where the broker's file may not be there yet: made, or taken as an empty broker."""
    found = chosen(url)
    return _run("memory://" if is_absent(found) and not makes else found, work)


def operator() -> str:
    """Who runs this command, for headers that say so."""
    return f"{os.environ.get('USER') or os.getuid()}@{platform.node()}"


def _run(url: str, work: Callable[[Broker, Clock], Coroutine[object, object, R]]) -> R:
    async def run() -> R:
        clock = AsyncioClock()
        async with _opened(url, clock) as broker:
            return await work(broker, clock)

    return asyncio.run(run())
