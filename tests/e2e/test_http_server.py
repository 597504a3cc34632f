"""The server as any client sees it, byte by byte where it matters."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from fastapi import FastAPI
from http_parts import Desk, serving
from msgspec import Struct

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import Undecodable
from callcast.transports.http_server import asgi_app
from callcast.transports.limits import HttpLimits


class Item(Struct):
    sku: str
    count: int = 1


class Order(Struct):
    id: str
    items: list[Item] = []


PLACE = Operation("orders.place", Order, str)
FIND = Operation("orders.find", str, Order, http="GET /orders/{order_id}")
DROP = Operation("orders.drop", str, None, http="DELETE /orders/{order_id}")


@pytest.fixture
def desk() -> Desk:
    desk = Desk()

    @desk.serves(PLACE)
    async def place(order: Order) -> str:
        return order.id

    @desk.serves(FIND)
    async def find(order_id: str) -> Order:
        return Order(order_id)

    @desk.serves(DROP)
    async def drop(order_id: str) -> None: ...

    return desk


@pytest.fixture
async def url(desk: Desk) -> AsyncIterator[str]:
    limits = HttpLimits(body_max_bytes=10_000, headers_max_bytes=4_000, body_wait=0.3)
    async with serving(asgi_app(desk, codec=JsonCodec(), limits=limits)) as base:
        yield base


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    members: dict[str, Any] = json.loads(await response.read())
    assert {"type", "title", "status", "detail", "instance", "correlation_id"} <= members.keys()
    assert members["status"] == response.status
    assert members["correlation_id"] == response.headers["X-Correlation-ID"]
    return members


async def raw(url: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send these bytes and read until the server closes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_an_unknown_path_is_404(url: str, http: aiohttp.ClientSession) -> None:
    for path in ("/nowhere", "/callcast/orders.unknown", "/orders/1/2", "/"):
        async with http.get(url + path) as response:
            assert response.status == 404
            assert (await problem(response))["instance"] == path


async def test_a_wrong_method_is_405_and_names_the_right_ones(
    url: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{url}/callcast/orders.place") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        await problem(response)
    async with http.post(f"{url}/orders/7", json={}) as response:
        assert response.headers["Allow"] == "DELETE, GET, HEAD"


async def test_head_is_get_without_the_body(url: str, http: aiohttp.ClientSession) -> None:
    async with http.head(f"{url}/orders/7") as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(len(b'{"id":"7","items":[]}'))
        assert await response.read() == b""


async def test_nothing_to_say_is_204(url: str, http: aiohttp.ClientSession) -> None:
    async with http.delete(f"{url}/orders/7") as response:
        assert response.status == 204
        assert "Content-Length" not in response.headers


async def test_a_request_that_does_not_validate_names_the_field(
    url: str, http: aiohttp.ClientSession
) -> None:
    body = {"id": "o", "items": [{"sku": "a"}, {"sku": 1}]}
    async with http.post(f"{url}/callcast/orders.place", json=body) as response:
        assert response.status == 400
        members = await problem(response)
    assert members["errors"] == [{"field": "$.items[1].sku", "detail": "Expected `str`, got `int`"}]


async def test_a_body_nested_without_end_is_400_and_the_server_lives(
    url: str, http: aiohttp.ClientSession
) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"[" * 9_000, b'{"id":"o","zz":' + b'{"a":' * 1_900):
        async with http.post(
            f"{url}/callcast/orders.place", data=body, headers=headers
        ) as response:
            assert response.status == 400
    async with http.get(f"{url}/orders/7") as response:
        assert response.status == 200


async def test_an_undecodable_of_the_handler_s_own_is_no_400(
    desk: Desk, url: str, http: aiohttp.ClientSession
) -> None:
    @desk.serves(FIND)
    async def find(order_id: str) -> Order:
        raise Undecodable("from some file")

    async with http.get(f"{url}/orders/7") as response:
        assert response.status == 500
        assert "some file" not in await response.text()


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.shop+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
    ],
)
async def test_only_json_is_taken(
    url: str, http: aiohttp.ClientSession, media: str, status: int
) -> None:
    async with http.post(
        f"{url}/callcast/orders.place", data=b'{"id":"o"}', headers={"Content-Type": media}
    ) as response:
        assert response.status == status


async def test_a_body_without_content_type_is_json(url: str) -> None:
    answer = await raw(
        url,
        b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b'Content-Length: 10\r\n\r\n{"id":"o"}',
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'"o"')


async def test_a_body_over_the_limit_is_413_before_it_is_read(url: str) -> None:
    answer = await raw(
        url,
        b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
    )
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"problem+json" in answer


async def test_a_chunked_body_over_the_limit_is_413_while_it_streams(url: str) -> None:
    chunk = b"800\r\n" + b"x" * 0x800 + b"\r\n"
    answer = await raw(
        url,
        b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        *[chunk] * 6,
        b"0\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_over_the_limit_is_413_though_its_sender_is_still_sending(
    url: str, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{url}/callcast/orders.place", json={"id": "x" * 70_000}) as response:
        assert response.status == 413


async def test_a_body_without_end_is_cut_off(url: str) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    answer = b"HTTP/1.1 413"
    with contextlib.suppress(ConnectionError):  # a reset may overtake the answer
        answer = await raw(
            url,
            b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            *[chunk] * 1_000,
        )
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_sender_that_asks_first_is_refused_before_it_sends(url: str) -> None:
    answer = await raw(
        url,
        b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 10001\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_in_pieces_is_put_together(url: str) -> None:
    answer = await raw(
        url,
        b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Length: 10\r\n\r\n",
        b'{"id',
        b'":"o"}',
        pause=0.02,
    )
    assert answer.endswith(b'"o"')


async def test_a_body_that_does_not_come_is_408(url: str) -> None:
    answer = await raw(
        url, b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
    )
    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_caller_that_hangs_up_within_its_body_is_not_served(desk: Desk, url: str) -> None:
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"POST /callcast/orders.place HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with aiohttp.ClientSession() as http, http.get(f"{url}/orders/7") as response:
        assert response.status == 200
    assert len(desk.arrivals) == 1


async def test_headers_over_the_limit_are_431(url: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{url}/orders/7", headers={"X-Much": "y" * 5_000}) as response:
        assert response.status == 431
        await problem(response)


async def test_a_malformed_idempotency_key_is_400(url: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{url}/orders/7", headers={"Idempotency-Key": '"open'}) as response:
        assert response.status == 400


async def test_a_correlation_id_is_echoed_when_it_is_safe_and_replaced_when_not(
    url: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{url}/orders/7", headers={"X-Request-ID": "req-1"}) as response:
        assert response.headers["X-Correlation-ID"] == "req-1"
    async with http.get(f"{url}/orders/7", headers={"X-Correlation-ID": "<b>"}) as response:
        assert response.headers["X-Correlation-ID"] != "<b>"
        assert len(response.headers["X-Correlation-ID"]) == 32


async def test_headers_arrive_with_lower_case_names_and_repeated_ones_joined(
    desk: Desk, url: str
) -> None:
    await raw(
        url,
        b"GET /orders/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTraceState: a=1\r\n"
        b"TraceState: b=2\r\ngrpc-timeout: 2S\r\ncallcast-attempt: 3\r\n\r\n",
    )
    arrival = desk.arrivals[0]
    assert arrival.headers["tracestate"] == "a=1, b=2"
    assert arrival.timeout == 2.0
    assert arrival.attempt == 3


async def test_a_value_with_an_encoded_slash_is_one_value(
    desk: Desk, url: str, http: aiohttp.ClientSession
) -> None:
    answer = await raw(
        url, b"GET /orders/a%2Fb%20c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b'"id":"a/b c"' in answer


async def test_health_is_told_from_outside(
    desk: Desk, url: str, http: aiohttp.ClientSession
) -> None:
    for is_ready, is_alive in ((True, True), (False, True), (False, False)):
        desk.is_ready, desk.is_alive = is_ready, is_alive
        async with http.get(f"{url}/readyz") as response:
            assert response.status == (200 if is_ready else 503)
            assert await response.json() == {"status": "ok" if is_ready else "unavailable"}
        async with http.get(f"{url}/livez") as response:
            assert response.status == (200 if is_alive else 503)


async def test_it_works_mounted_in_fastapi_below_a_prefix(
    desk: Desk, http: aiohttp.ClientSession
) -> None:
    outer = FastAPI()
    outer.mount("/größe/services", asgi_app(desk, codec=JsonCodec()))

    @outer.get("/own")
    async def own() -> str:
        return "mine"

    async with serving(outer) as url:
        prefix = f"{url}/gr%C3%B6%C3%9Fe/services"
        async with http.get(f"{url}/own") as response:
            assert await response.json() == "mine"
        async with http.get(f"{prefix}/orders/7") as response:
            assert await response.json() == {"id": "7", "items": []}
        async with http.post(f"{prefix}/callcast/orders.place", json={"id": "o"}) as response:
            assert await response.json() == "o"
        async with http.get(f"{prefix}/readyz") as response:
            assert response.status == 200
        async with http.get(f"{prefix}/nowhere") as response:
            assert (await problem(response))["instance"] == "/nowhere"
