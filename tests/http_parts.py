"""Parts for tests of the transports: a dispatcher without a bus, a server on a free port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from callcast.codecs import JsonCodec
from callcast.core.context import Context
from callcast.core.contract import Operation
from callcast.core.work import Kind, Work
from callcast.policies.silent import Silent
from callcast.ports.clock import Clock
from callcast.ports.observer import WorkSpan
from callcast.ports.transport import Arrival
from callcast.runtime.clock import AsyncioClock
from callcast.transports.aiohttp_client import AiohttpTransport

Handler = Callable[[Any], Awaitable[object]]


class Desk:
    """A dispatcher that calls handlers without any layer, and remembers what arrived."""

    def __init__(self) -> None:
        self.is_ready = True
        self.is_alive = True
        self.handlers: dict[str, tuple[Operation[Any, Any], Handler]] = {}
        self.arrivals: list[Arrival] = []

    def serves(self, operation: Operation[Any, Any]) -> Callable[[Handler], Handler]:
        def added(handler: Handler) -> Handler:
            self.handlers[operation.name] = (operation, handler)
            return handler

        return added

    def operations(self) -> Sequence[Operation[Any, Any]]:
        return [operation for operation, _ in self.handlers.values()]

    async def serve(self, operation: Operation[Any, Any], arrival: Arrival) -> object:
        self.arrivals.append(arrival)
        return await self.handlers[operation.name][1](arrival.payload())


class Span:
    def __init__(self, url: str) -> None:
        self.url = url
        self.error: BaseException | None = None
        self.status: int | None = None
        self.ended = 0

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        self.error, self.status, self.ended = error, status, self.ended + 1


class Watching(Silent):
    """Remembers the spans of attempts, and sends a trace along."""

    def __init__(self, carried: Mapping[str, str] | None = None) -> None:
        self.spans: list[Span] = []
        self.carried = carried or {}

    def attempt(self, work: Work, url: str) -> WorkSpan:
        self.spans.append(Span(url))
        return self.spans[-1]

    def carrier(self, work: Work) -> Mapping[str, str]:
        return self.carried


def work_of(operation: Operation[Any, Any], value: object, clock: Clock, **fields: Any) -> Work:
    fields.setdefault("deadline", clock.now() + 5.0)
    return Work(
        Kind.CALL, operation.name, fields.pop("id", "call-1"), operation, "peer", value, **fields
    )


def context_of(**fields: Any) -> Context:
    return Context(fields.pop("message_id", "m-1"), fields.pop("correlation_id", "c-1"), **fields)


@asynccontextmanager
async def serving(app: Any, **config: Any) -> AsyncIterator[str]:
    """Run an ASGI app on a free loopback port; its base URL."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # else asyncio sets no TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    config.setdefault("lifespan", "off")
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, **config)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that does with each connection what it is told, byte by byte."""
    open_: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client under test hung up
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_:
            writer.close()
        await server.wait_closed()


@asynccontextmanager
async def calling(url: str, **options: Any) -> AsyncIterator[AiohttpTransport]:
    """A transport to that URL, closed at the end."""
    options.setdefault("clock", AsyncioClock())
    options.setdefault("observer", Silent())
    transport = AiohttpTransport("peer", url, codec=JsonCodec(), **options)
    try:
        yield transport
    finally:
        await transport.close()
