"""A REST API that knows nothing of callcast, called with typed contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from http_parts import calling, serving, work_of
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from callcast import Bus, Peer
from callcast.core.contract import Operation
from callcast.core.errors import Remote
from callcast.runtime.clock import AsyncioClock

clock = AsyncioClock()


class User(Struct, rename="camel"):
    user_id: int
    display_name: str


class Search(Struct):
    text: str
    tag: list[str] = []
    page: int | None = None
    exact: bool = False


class Change(Struct):
    user_id: int
    display_name: str


GET = Operation("users.get", int, User, http="GET /users/{user_id}")
FIND = Operation("users.find", Search, dict[str, list[str]], http="GET /users")
CHANGE = Operation("users.change", Change, User, http="PATCH /users/{user_id}")
DROP = Operation("users.drop", int, None, http="DELETE /users/{user_id}")
HEAD = Operation("users.known", int, None, http="HEAD /users/{user_id}")
WRONG = Operation("users.wrong", int, list[User], http="GET /users/{user_id}")
BROKEN = Operation("users.broken", None, int, http="GET /broken")


async def user(request: Request) -> Response:
    user_id = int(request.path_params["user_id"])
    if user_id == 404:
        raise HTTPException(404, "no such user")
    if request.method == "DELETE":
        return Response(status_code=204)
    if request.method == "PATCH":
        return JSONResponse(
            {"userId": user_id, "displayName": (await request.json())["display_name"]}
        )
    return JSONResponse(
        {"userId": user_id, "displayName": request.headers["X-Api-Key"], "extra": [1]}
    )


async def users(request: Request) -> Response:
    query = request.query_params
    return JSONResponse({key: query.getlist(key) for key in query})


async def broken(request: Request) -> Response:
    return PlainTextResponse("upstream\nis down", 502, {"Retry-After": "3"})


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = Starlette(
        routes=[
            Route("/api/users", users),
            Route("/api/users/{user_id}", user, methods=["GET", "PATCH", "DELETE"]),
            Route("/api/broken", broken),
        ]
    )
    async with serving(app) as base:
        yield f"{base}/api/"


async def test_path_query_and_body_are_what_the_api_expects(url: str) -> None:
    async with calling(url, headers={"X-Api-Key": "k-1"}) as peer:
        assert await peer.send(work_of(GET, 7, clock)) == User(7, "k-1")
        assert await peer.send(work_of(CHANGE, Change(7, "Ann"), clock)) == User(7, "Ann")
        assert await peer.send(work_of(DROP, 7, clock)) is None
        assert await peer.send(work_of(HEAD, 7, clock)) is None
        search = Search("größe & co", ["a", "b"], None, True)
        assert await peer.send(work_of(FIND, search, clock)) == {
            "text": ["größe & co"],
            "tag": ["a", "b"],
            "exact": ["true"],
        }


async def test_its_errors_are_typed_though_they_are_no_problem_details(url: str) -> None:
    async with calling(url) as peer:
        with pytest.raises(Remote, match="no such user") as caught:
            await peer.send(work_of(GET, 404, clock))
        assert (caught.value.status, caught.value.retryable) == (404, False)
        with pytest.raises(Remote, match="upstream is down") as caught:
            await peer.send(work_of(BROKEN, None, clock))
        assert (caught.value.status, caught.value.retryable) == (502, True)
        assert caught.value.retry_after == 3.0


async def test_an_answer_that_is_not_what_the_contract_says_names_the_field(url: str) -> None:
    async with calling(url, headers={"X-Api-Key": "k"}) as peer:
        with pytest.raises(Remote, match=r"users\.wrong.*\$: Expected `array`") as caught:
            await peer.send(work_of(WRONG, 7, clock))
    assert not caught.value.retryable


async def test_a_bus_calls_it_by_its_peers_url_headers_and_authorization(url: str) -> None:
    shown: list[str] = []

    async def account(request: Request) -> Response:
        shown.append(request.headers["Authorization"])
        if len(shown) == 1:
            return Response(status_code=503, headers={"Retry-After": "0"})
        return JSONResponse({"userId": 7, "displayName": request.headers["X-Api-Key"]})

    tokens = iter(["Bearer stale", "Bearer fresh"])
    app = Starlette(routes=[Route("/v2/users/{user_id}", account)])
    async with serving(app) as other:
        peers = {
            "users": Peer(f"{other}/v2/", headers={"X-Api-Key": "k"}, auth=lambda: next(tokens))
        }
        async with Bus("memory://", name="caller", peers=peers) as bus:
            assert await bus.call(GET, 7) == User(7, "k")
    assert shown == ["Bearer stale", "Bearer fresh"]  # a GET is idempotent, so it was retried
    peers = {"users": Peer(url, headers={"X-Api-Key": "other"}, auth="Basic eDp5")}
    async with Bus("memory://", name="caller", peers=peers) as bus:
        assert await bus.call(GET, 7) == User(7, "other")
        assert await bus.call(CHANGE, Change(7, "Zoe")) == User(7, "Zoe")
        with pytest.raises(Remote, match="no such user"):
            await bus.call(GET, 404)
