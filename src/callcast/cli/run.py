"""``callcast run``: serve calls over HTTP and consume messages, until a signal; then drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from callcast.cli.failure import Failure, Interrupted
from callcast.cli.loading import load
from callcast.runtime import registry
from callcast.runtime.bus import Bus
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.service import Service
from callcast.runtime.tasks import AsyncioTasks
from callcast.telemetry.logs import install, log_event

LOOK = 0.5
"""Seconds between two looks whether all parts of the bus still run."""
BACKLOG = 2_048


@click.command(
    epilog="""\b
Examples:
  callcast run shop.orders:service --port 8001
  callcast run shop.orders:service shop.inventory:service --broker sqlite:///shop.db
  callcast run shop.orders:service --peer inventory=http://inventory:8080 --log json

SIGTERM and Ctrl-C drain: /readyz says no, work under way ends, the rest goes back unharmed.
"""
)
@click.argument("targets", nargs=-1, required=True, metavar="MODULE:NAME...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for any.",
)
@click.option("--broker", "url", metavar="URL", help="The broker; see 'callcast queues --help'.")
@click.option("--peer", "peers", multiple=True, metavar="NAME=URL", help="Where a service is.")
@click.option(
    "--log",
    type=click.Choice(["text", "json", "debug"]),
    default="text",
    show_default=True,
    help="Lines for people; JSON for programs; JSON of every fact.",
)
@click.option(
    "--until-eof",
    is_flag=True,
    help="Drain also when standard input ends: with whoever holds the other end of that pipe.",
)
def run(  # noqa: PLR0913 - an option each
    *,
    targets: Sequence[str],
    host: str,
    port: int,
    url: str | None,
    peers: Sequence[str],
    log: str,
    until_eof: bool,
) -> None:
    """Serve calls and consume messages of services, or of a bus of your own making."""
    undo = install(as_json=log != "text", drivers=log == "debug")
    logger = logging.getLogger("callcast")
    before = logger.level
    logger.setLevel(logging.DEBUG if log == "debug" else before)
    try:
        bus = bus_of([load(target) for target in targets], url, _peers(peers))
        lifeline = lifeline_of(sys.stdin.fileno()) if until_eof else None
        asyncio.run(serve(bus, listener(host, port), lifeline=lifeline))
    finally:
        logger.setLevel(before)
        undo()


def bus_of(found: Sequence[object], url: str | None, peers: Mapping[str, str]) -> Bus:
    """A bus for these services, or the one bus that was named."""
    services = [each for each in found if isinstance(each, Service)]
    if len(services) == len(found):
        return Bus(url, services=services, peers=peers)
    if len(found) == 1 and isinstance(found[0], Bus):
        if url or peers:
            raise Failure(f"{found[0]!r} says itself which broker and peers it has")
        return found[0]
    wrong = next(each for each in found if not isinstance(each, Service))
    raise Failure(f"name Services, or one Bus; not {type(wrong).__name__}")


def listener(host: str, port: int) -> socket.socket:
    """A listening socket; raises `OSError` for an address that is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error


def lifeline_of(descriptor: int) -> int:
    """The file descriptor, when it is one that ends with the process at its other end."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return descriptor
    raise Failure(
        "--until-eof: standard input is no pipe, so nobody's death ends it",
        fix="start callcast run with a pipe as its standard input",
    )


async def serve(bus: Bus, listening: socket.socket, *, lifeline: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until a part of the bus fails, whose error is raised.

    The end of `lifeline`, a pipe or socket, counts as a signal: its other end goes with the process
    that holds it, however that dies.

    The server stands around the bus: while the bus drains, ``/readyz`` says no and answers of
    calls under way still leave.
    """
    clock, tasks = AsyncioClock(), AsyncioTasks(_failed)
    signals = Signals(asyncio.get_running_loop())
    if lifeline is not None:
        signals.watch(lifeline)
    server = registry.http_server(bus.asgi(), listening)
    serving = tasks.start(server.serve(), name="http server")
    address = listening.getsockname()
    try:
        async with bus:
            log_event("ready", {"bus": bus.name, "host": address[0], "port": address[1]})
            while bus.dispatcher.is_alive and not serving.done and not signals.has_come:
                with suppress(TimeoutError), clock.expire_at(clock.now() + LOOK):
                    await signals.wait()
            log_event("draining", {"bus": bus.name, "reason": signals.reason})
    finally:
        server.stop()
        await serving.wait()
        signals.close()
        log_event("stopped", {"bus": bus.name})
    if signals.got is signal.SIGINT:
        raise Interrupted


class Signals:
    """The first SIGTERM or SIGINT is noted; the second one does what it does by default.

    So is the end of a file descriptor that is watched.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._came = asyncio.Event()
        self._lifeline: int | None = None
        self.got: signal.Signals | None = None
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._note, each)

    @property
    def reason(self) -> str:
        """Which one came."""
        if self.got is not None:
            return self.got.name
        return "the lifeline ended" if self.has_come else "a part of the bus failed"

    @property
    def has_come(self) -> bool:
        """Whether it is time to drain."""
        return self._came.is_set()

    def watch(self, lifeline: int) -> None:
        """Note the end of this pipe or socket, too."""
        self._loop.add_reader(lifeline, self._read, lifeline)
        self._lifeline = lifeline

    async def wait(self) -> None:
        """Return when one came."""
        await self._came.wait()

    def close(self) -> None:
        """Let signals be. Idempotent."""
        for each in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(each)
        if self._lifeline is not None:
            self._loop.remove_reader(self._lifeline)

    def _read(self, lifeline: int) -> None:
        if not os.read(lifeline, 4096):  # what is written is no reason to end
            self._came.set()
            self.close()

    def _note(self, got: signal.Signals) -> None:
        self.got = got
        self._came.set()
        self.close()


def _peers(given: Sequence[str]) -> Mapping[str, str]:
    peers: dict[str, str] = {}
    for text in given:
        name, found, url = text.partition("=")
        if not found or not name or not url:
            raise Failure(
                f"--peer {text!r}: write NAME=URL", fix="--peer inventory=http://host:8080"
            )
        peers[name] = url
    return peers


def _failed(name: str, error: BaseException) -> None:
    logging.getLogger("callcast").critical("%s failed", name, exc_info=error)
