"""Our client against our server, over real sockets."""

from __future__ import annotations

import asyncio
import logging

import pytest
from http_parts import Desk, Watching, calling, context_of, serving, work_of
from msgspec import Struct

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import (
    BulkheadFull,
    Expired,
    Misuse,
    NotSent,
    Refused,
    Remote,
    Unanswered,
    Unavailable,
)
from callcast.runtime.clock import AsyncioClock
from callcast.transports.http_server import asgi_app
from callcast.transports.limits import HttpLimits


class User(Struct):
    user_id: int
    name: str = ""
    tags: list[str] = []


STOCK = Operation("inventory.stock", str, int)
RESERVE = Operation("inventory.reserve", str, None, once=True)
USER = Operation("users.get", int, User, http="GET /users/{user_id}")
CHANGE = Operation("users.change", User, User, http="PUT /users/{user_id}")
KNOWN = Operation("users.known", int, None, http="HEAD /known/{user_id}")
clock = AsyncioClock()


@pytest.fixture
def desk() -> Desk:
    desk = Desk()

    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        return len(sku)

    return desk


async def test_a_call_gives_the_answer_of_the_handler(desk: Desk) -> None:
    async with serving(asgi_app(desk, codec=JsonCodec())) as url, calling(url) as peer:
        assert await peer.send(work_of(STOCK, "tea", clock)) == 3


async def test_bound_operations_reach_their_handlers_by_path_query_and_body(desk: Desk) -> None:
    @desk.serves(USER)
    async def get(user_id: int) -> User:
        return User(user_id, "Ann")

    @desk.serves(CHANGE)
    async def change(user: User) -> User:
        return user

    @desk.serves(KNOWN)
    async def known(user_id: int) -> None:
        if user_id != 7:
            raise Refused("nobody", status=404)

    async with serving(asgi_app(desk, codec=JsonCodec())) as url, calling(url) as peer:
        assert await peer.send(work_of(USER, 7, clock)) == User(7, "Ann")
        changed = User(7, "Bob", ["x"])
        assert await peer.send(work_of(CHANGE, changed, clock)) == changed
        assert await peer.send(work_of(KNOWN, 7, clock)) is None
        with pytest.raises(Remote) as caught:
            await peer.send(work_of(KNOWN, 8, clock))
        assert caught.value.status == 404


async def test_ids_attempt_trace_and_remaining_time_arrive(desk: Desk) -> None:
    @desk.serves(RESERVE)
    async def reserve(sku: str) -> None: ...

    trace = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    watching = Watching(trace)
    async with (
        serving(asgi_app(desk, codec=JsonCodec())) as url,
        calling(
            url, observer=watching, headers={"X-Tenant": "acme"}, auth=lambda: "Bearer t0ken"
        ) as peer,
    ):
        work = work_of(RESERVE, "tea", clock, id="r-1", attempt=2, context=context_of())
        assert await peer.send(work) is None
        await peer.send(work_of(STOCK, "tea", clock, id="s-1", until=clock.now() + 0.5))
    first, second = desk.arrivals
    assert first.idempotency_key == "r-1"
    assert first.attempt == 2
    assert (first.correlation_id, first.causation_id) == ("c-1", "m-1")
    assert first.headers["traceparent"] == trace["traceparent"]
    assert first.headers["x-tenant"] == "acme"
    assert first.headers["authorization"] == "Bearer t0ken"
    assert first.timeout is not None
    assert 4.0 < first.timeout <= 5.0
    assert second.idempotency_key is None
    assert (second.correlation_id, second.causation_id) == ("s-1", None)
    assert second.timeout is not None
    assert 0.0 < second.timeout <= 0.5
    assert [span.status for span in watching.spans] == [204, 200]
    assert watching.spans[0].url == f"{url}/callcast/inventory.reserve"


@pytest.mark.parametrize(
    ("error", "status", "do_not_retry", "retry_after"),
    [
        (Refused("sold out", status=410, type="https://x/y", data={"left": 0}), 410, False, None),
        (BulkheadFull("x"), 503, True, None),
        (NotSent("x"), 503, True, None),
        (Unanswered("x"), 504, True, None),
        (Expired("x"), 504, True, None),
        (Remote("x", status=404), 502, True, None),
        (Unavailable("x"), 503, False, 1.0),
        (KeyError("secret"), 500, False, None),
        (Misuse("secret"), 500, False, None),
    ],
)
async def test_errors_come_back_typed(
    desk: Desk,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    do_not_retry: bool,
    retry_after: float | None,
) -> None:
    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        raise error

    watching = Watching()
    async with (
        serving(asgi_app(desk, codec=JsonCodec())) as url,
        calling(url, observer=watching) as peer,
    ):
        with caplog.at_level(logging.ERROR, "callcast.http"), pytest.raises(Remote) as caught:
            await peer.send(work_of(STOCK, "tea", clock, id="s-1"))
    remote = caught.value
    assert (remote.status, remote.do_not_retry, remote.retry_after) == (
        status,
        do_not_retry,
        retry_after,
    )
    assert remote.data["correlation_id"] == "s-1"
    assert "secret" not in str(remote)
    assert watching.spans[0].error is remote
    assert watching.spans[0].status == status
    logged = [record for record in caplog.records if record.name == "callcast.http"]
    assert [record.exc_info and record.exc_info[1] for record in logged] == (
        [error] if status == 500 else []
    )
    if isinstance(error, Refused):
        assert (remote.type, remote.data["left"], str(remote)) == ("https://x/y", 0, "sold out")


async def test_a_result_that_is_not_what_the_contract_says_is_500(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    @desk.serves(STOCK)
    async def stock(sku: str) -> object:
        return object()

    async with serving(asgi_app(desk, codec=JsonCodec())) as url, calling(url) as peer:
        with pytest.raises(Remote) as caught:
            await peer.send(work_of(STOCK, "tea", clock))
    assert caught.value.status == 500
    assert any(record.name == "callcast.http" for record in caplog.records)


async def test_a_server_that_is_not_ready_says_so_and_when_to_come_back(desk: Desk) -> None:
    desk.is_ready = False
    async with serving(asgi_app(desk, codec=JsonCodec())) as url, calling(url) as peer:
        with pytest.raises(Remote, match="async with bus") as caught:
            await peer.send(work_of(STOCK, "tea", clock))
        assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
        assert caught.value.retryable
        desk.is_ready = True
        assert await peer.send(work_of(STOCK, "tea", clock)) == 3


async def test_an_operation_that_is_served_only_later_is_found(desk: Desk) -> None:
    app = asgi_app(desk, codec=JsonCodec())
    async with serving(app) as url, calling(url) as peer:
        with pytest.raises(Remote) as caught:
            await peer.send(work_of(USER, 7, clock))
        assert caught.value.status == 404

        @desk.serves(USER)
        async def get(user_id: int) -> User:
            return User(user_id)

        assert await peer.send(work_of(USER, 7, clock)) == User(7)


async def test_a_large_answer_and_a_large_request_are_within_bounds(desk: Desk) -> None:
    echo = Operation("x.echo", str, str)

    @desk.serves(echo)
    async def answer(text: str) -> str:
        return text

    roomy = HttpLimits(body_max_bytes=4 * 2**20)
    large = "x" * (2 * 2**20)
    async with serving(asgi_app(desk, codec=JsonCodec(), limits=roomy)) as url:
        async with calling(url, limits=roomy) as peer:
            assert await peer.send(work_of(echo, large, clock)) == large
        async with calling(url) as peer:
            with pytest.raises(Misuse, match="limit is 1048576"):
                await peer.send(work_of(echo, large, clock))


async def test_a_call_that_is_cancelled_ends_the_handler_with_its_children(desk: Desk) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        async def child() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.set()
                raise

        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            begun.set()
        return 1

    async with serving(asgi_app(desk, codec=JsonCodec())) as url, calling(url) as peer:
        call = asyncio.create_task(peer.send(work_of(STOCK, "tea", clock)))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_call_that_is_late_is_unanswered_in_time(desk: Desk) -> None:
    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        await asyncio.Event().wait()
        return 1

    async with serving(asgi_app(desk, codec=JsonCodec())) as url, calling(url) as peer:
        began = clock.now()
        with pytest.raises(Unanswered, match=r"no answer within 0\.\d+ s") as caught:
            await peer.send(work_of(STOCK, "tea", clock, id="s-1", until=began + 0.1))
        assert caught.value.id == "s-1"
        assert clock.now() - began < 2.0
