"""``callcast exporter``: what waits at a broker, for Prometheus to scrape."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import click

from callcast.cli.letters import sources_of
from callcast.cli.opening import broker_option, chosen, existing, opened
from callcast.cli.run import listener
from callcast.core.errors import CallcastError
from callcast.ports.broker import Broker, Lag, Source
from callcast.runtime import registry
from callcast.runtime.system import system_ports
from callcast.telemetry.logs import log_event

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATIENCE = 8.0
"""Seconds that a scrape may take, below the ten that Prometheus waits."""
AT_ONCE = 8


@click.command(
    epilog="""\b
Examples:
  callcast exporter --broker amqp://rabbit/shop --port 9464
  callcast exporter --broker sqlite:///shop.db

While the broker cannot be asked, callcast_broker_up is 0 and the rest is missing.
"""
)
@broker_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9464, show_default=True, help="0 for any."
)
def exporter(url: str | None, *, host: str, port: int) -> None:
    """Serve depth, lag, its age and dead letters of all groups on /metrics, until a signal."""
    found = existing(chosen(url))
    registry.queue_page(None)  # what is missing is said before anything listens
    asyncio.run(serve(found, host, port))


async def serve(url: str, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    socket = listener(host, port)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    async with opened(url, system_ports(url).clock) as broker:
        server = registry.http_server(Page(broker), socket)
        async with asyncio.TaskGroup() as serving:
            serving.create_task(server.serve())
            log_event("ready", {"host": host, "port": socket.getsockname()[1]})
            await stop.wait()
            server.stop()


class Page:
    """An ASGI application with one page."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Answer one scrape; every path is the page."""
        del receive
        if scope["type"] != "http":
            return
        kind, body = registry.queue_page(await self._rows())
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _rows(self) -> Sequence[tuple[str, str, Lag]] | None:
        room = asyncio.Semaphore(AT_ONCE)

        async def look(source: Source) -> tuple[str, str, Lag]:
            async with room:
                return source.topic, source.group, await self._broker.lag(source)

        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.gather(*map(look, await sources_of(self._broker)))
        except (CallcastError, TimeoutError) as error:
            log_event("broker not asked", {"error": str(error)})
            return None
