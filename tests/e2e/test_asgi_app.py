"""The ASGI application as its server sees it: callers that hang up, cancellations, what it is not for."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from http_parts import Desk, serving

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import Misuse
from callcast.transports.http_server import asgi_app

SLOW = Operation("orders.slow", None, None)


async def test_a_caller_that_hangs_up_ends_its_handler() -> None:
    desk = Desk()
    begun, ended = asyncio.Event(), asyncio.Event()

    @desk.serves(SLOW)
    async def slow(nothing: None) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    async with serving(asgi_app(desk, codec=JsonCodec())) as url:
        parts = urlsplit(url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"POST /callcast/orders.slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await begun.wait()
        writer.close()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_cancellation_of_the_server_passes_through() -> None:
    desk = Desk()
    begun = asyncio.Event()

    @desk.serves(SLOW)
    async def slow(nothing: None) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app = asgi_app(desk, codec=JsonCodec())
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/callcast/orders.slow",  # no raw_path: a server need not send one
        "query_string": b"",
        "headers": [],
    }
    task = asyncio.create_task(app(scope, receive, send))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent == []


async def test_a_websocket_is_refused() -> None:
    desk = Desk()

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/orders/7", "headers": [], "query_string": b""}
    await asgi_app(desk, codec=JsonCodec())(scope, receive, send)
    assert sent == [{"type": "websocket.close"}]


def test_operations_that_cannot_be_bound_are_misuse_when_the_app_is_made() -> None:
    desk = Desk()

    @desk.serves(Operation("x.y", None, None, http="GET /{a}"))
    async def serve(nothing: None) -> None: ...

    with pytest.raises(Misuse, match=r"x\.y"):
        asgi_app(desk, codec=JsonCodec())
