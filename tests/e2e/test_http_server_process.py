"""The server that `callcast run` runs."""

from __future__ import annotations

import asyncio
import socket

import pytest
from http_parts import Desk, calling, work_of

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import NotSent
from callcast.runtime.clock import AsyncioClock
from callcast.transports.http_server import asgi_app
from callcast.transports.uvicorn_server import HttpServer

STOCK = Operation("inventory.stock", str, int)
clock = AsyncioClock()


async def test_it_serves_until_it_is_told_to_stop_and_acknowledges_without_delay() -> None:
    desk = Desk()

    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        return 7

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = HttpServer(asgi_app(desk, codec=JsonCodec()), listener)
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    serving = asyncio.create_task(server.serve())
    async with calling(f"http://127.0.0.1:{port}") as peer:
        for _ in range(3):
            assert await peer.send(work_of(STOCK, "tea", clock)) == 7
    server.stop()
    server.stop()
    await serving
    async with calling(f"http://127.0.0.1:{port}") as peer:
        with pytest.raises(NotSent):
            await peer.send(work_of(STOCK, "tea", clock))


async def test_a_unix_socket_has_no_such_option(tmp_path: object) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        HttpServer(asgi_app(Desk(), codec=JsonCodec()), listener)
