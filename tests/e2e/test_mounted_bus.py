"""`bus.asgi()` in an application of the user's own: before the bus runs, while it does, and after.

Frameworks do not run the lifespan of an application that is mounted in another, so the outer
lifespan enters the bus.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import aiohttp
import pytest
from fastapi import FastAPI
from http_parts import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from callcast import Bus, Context, Operation, Service, Struct

PREFIX = "/internal"


class Mounted(Protocol):
    def __call__(self, bus: Bus, *, runs: bool) -> ASGIApp: ...


class Item(Struct):
    sku: str
    left: int


STOCK = Operation("inventory.stock", str, Item, http="GET /stock/{sku}", idempotent=True)


def inventory() -> Service:
    service = Service("inventory")

    @service.serves(STOCK)
    async def stock(sku: str, context: Context) -> Item:
        assert context.correlation_id
        return Item(sku, 7)

    return service


def in_fastapi(bus: Bus, *, runs: bool) -> ASGIApp:
    """A FastAPI application with a route of its own; its lifespan enters the bus where it `runs`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with bus:
            yield

    app = FastAPI(lifespan=lifespan if runs else None)

    @app.get("/own")
    async def own() -> str:
        return "mine"

    app.mount(PREFIX, bus.asgi())
    return app


def in_starlette(bus: Bus, *, runs: bool) -> ASGIApp:
    """The same in Starlette."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with bus:
            yield

    async def own(request: Request) -> Response:
        return JSONResponse("mine")

    routes = [Route("/own", own), Mount(PREFIX, app=bus.asgi())]
    return Starlette(routes=routes, lifespan=lifespan if runs else None)


@pytest.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(http: aiohttp.ClientSession, url: str) -> tuple[int, object]:
    async with http.get(url) as response:
        return response.status, await response.json(content_type=None)


async def refused(http: aiohttp.ClientSession, url: str) -> None:
    """The operations and readiness answer 503, the rest of the application as ever."""
    async with http.get(f"{url}{PREFIX}/stock/tea") as response:
        assert response.status == 503
        assert response.content_type == "application/problem+json"
        assert response.headers["Retry-After"] == "1"
        assert "the outer lifespan must enter 'async with bus'" in (await response.json())["detail"]
    assert (await ask(http, f"{url}{PREFIX}/readyz"))[0] == 503
    assert (await ask(http, f"{url}{PREFIX}/livez"))[0] == 200
    assert await ask(http, f"{url}/own") == (200, "mine")


@pytest.mark.parametrize("mounted", [in_fastapi, in_starlette])
async def test_a_mounted_bus_answers_503_until_it_is_entered_then_serves_then_503_again(
    mounted: Mounted, http: aiohttp.ClientSession
) -> None:
    bus = Bus("memory://", services=[inventory()])
    async with serving(mounted(bus, runs=False)) as url:
        await refused(http, url)
        async with bus:
            assert await ask(http, f"{url}{PREFIX}/readyz") == (200, {"status": "ok"})
            served = await ask(http, f"{url}{PREFIX}/stock/green%20tea")
            assert served == (200, {"sku": "green tea", "left": 7})
            assert await ask(http, f"{url}/own") == (200, "mine")
        await refused(http, url)


@pytest.mark.parametrize("mounted", [in_fastapi, in_starlette])
async def test_the_lifespan_of_the_outer_application_runs_the_bus(
    mounted: Mounted, http: aiohttp.ClientSession
) -> None:
    bus = Bus("memory://", services=[inventory()])
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(mounted(bus, runs=True), lifespan="on"))
        assert await ask(http, f"{url}{PREFIX}/stock/tea") == (200, {"sku": "tea", "left": 7})
        assert await ask(http, f"{url}{PREFIX}/readyz") == (200, {"status": "ok"})
        caller = Bus("memory://", name="caller", peers={"inventory": url + PREFIX})
        await stack.enter_async_context(caller)
        assert await caller.call(STOCK, "tea") == Item("tea", 7)
    assert not bus.dispatcher.is_ready


@pytest.mark.parametrize("mounted", [in_fastapi, in_starlette])
async def test_a_lifespan_that_nobody_runs_is_said_to_its_callers(
    mounted: Mounted, http: aiohttp.ClientSession
) -> None:
    """As an application that is itself mounted in one that enters nothing."""
    bus = Bus("memory://", services=[inventory()])
    outer = Starlette(routes=[Mount("/v1", app=mounted(bus, runs=True))])
    async with serving(outer, lifespan="on") as url:
        await refused(http, f"{url}/v1")
