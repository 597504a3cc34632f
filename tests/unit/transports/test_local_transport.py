"""Calls within one process look to both sides like calls over HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from http_parts import Desk, context_of, work_of

from callcast.core.contract import Event, Operation
from callcast.core.errors import (
    CircuitOpen,
    Expired,
    Misuse,
    NotSent,
    Refused,
    Remote,
    Unanswered,
    Undecodable,
)
from callcast.testing.clock import ManualClock
from callcast.transports.local import LocalTransport

STOCK = Operation("inventory.stock", str, int)
RESERVE = Operation("inventory.reserve", str, None, once=True, deadline=2.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_the_value_is_handed_over_as_it_is(clock: ManualClock, desk: Desk) -> None:
    seen: list[object] = []

    @desk.serves(STOCK)
    async def stock(sku: object) -> int:
        seen.append(sku)
        return 7

    sku = ["not even text"]
    assert await LocalTransport(desk, clock).send(work_of(STOCK, sku, clock)) == 7
    assert seen[0] is sku


async def test_ids_attempt_and_remaining_time_arrive(clock: ManualClock, desk: Desk) -> None:
    @desk.serves(RESERVE)
    async def reserve(sku: str) -> None: ...

    transport = LocalTransport(desk, clock)
    await transport.send(
        work_of(
            RESERVE,
            "tea",
            clock,
            id="r-1",
            attempt=2,
            until=clock.now() + 0.5,
            context=context_of(),
        )
    )
    arrival = desk.arrivals[0]
    assert arrival.timeout == pytest.approx(0.5)
    assert arrival.attempt == 2
    assert arrival.idempotency_key == "r-1"
    assert arrival.correlation_id == "c-1"
    assert arrival.causation_id == "m-1"


async def test_a_first_call_starts_a_correlation(clock: ManualClock, desk: Desk) -> None:
    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        return 1

    await LocalTransport(desk, clock).send(work_of(STOCK, "tea", clock, id="s-1", deadline=None))
    arrival = desk.arrivals[0]
    assert arrival.timeout == pytest.approx(STOCK.deadline)
    assert arrival.idempotency_key is None
    assert (arrival.correlation_id, arrival.causation_id) == ("s-1", None)


async def test_a_call_ends_at_its_deadline_and_takes_the_handler_with_it(
    clock: ManualClock, desk: Desk
) -> None:
    ended: list[str] = []

    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        try:
            await clock.sleep(100.0)
        except asyncio.CancelledError:
            ended.append(sku)
            raise
        return 1

    call = asyncio.create_task(
        LocalTransport(desk, clock).send(work_of(STOCK, "tea", clock, deadline=clock.now() + 1.0))
    )
    await clock.advance(0.9)
    assert not call.done()
    await clock.advance(0.2)
    with pytest.raises(Unanswered, match="no answer within"):
        await call
    assert ended == ["tea"]


@pytest.mark.parametrize("error", [TimeoutError(), Unanswered("late"), Expired("late")])
async def test_the_served_side_s_own_deadline_is_no_answer(
    clock: ManualClock, desk: Desk, error: Exception
) -> None:
    until = clock.now() + 1.0

    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        clock.step_wall(0.0)
        clock._now = until  # the served chain's timer rings first
        raise error

    with pytest.raises(Unanswered) as caught:
        await LocalTransport(desk, clock).send(work_of(STOCK, "tea", clock, deadline=until))
    assert caught.value.__cause__ is error


async def test_nothing_is_sent_without_a_millisecond_left(clock: ManualClock, desk: Desk) -> None:
    with pytest.raises(Expired):
        await LocalTransport(desk, clock).send(
            work_of(STOCK, "tea", clock, deadline=clock.now() + 0.0005)
        )
    assert desk.arrivals == []


@pytest.mark.parametrize(
    ("error", "status", "do_not_retry"),
    [
        (Refused("sold out", status=410, data={"left": 0}), 410, False),
        (NotSent("x"), 503, True),
        (CircuitOpen("x", retry_after=1), 503, True),
        (Unanswered("x"), 504, True),
        (Remote("x", status=404), 502, True),
        (Undecodable("x"), 500, False),
        (TimeoutError("its own"), 500, False),
        (KeyError("secret"), 500, False),
    ],
)
async def test_errors_arrive_as_they_do_over_http(
    clock: ManualClock,
    desk: Desk,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    do_not_retry: bool,
) -> None:
    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        raise error

    with (
        caplog.at_level(logging.ERROR, "callcast.local"),
        pytest.raises(Remote) as caught,
    ):
        await LocalTransport(desk, clock).send(work_of(STOCK, "tea", clock, id="s-1"))
    remote = caught.value
    assert (remote.status, remote.do_not_retry) == (status, do_not_retry)
    assert remote.data["correlation_id"] == "s-1"
    assert remote.__cause__ is error
    assert "secret" not in str(remote)
    assert len(caplog.records) == (1 if status == 500 else 0)
    if isinstance(error, Refused):
        assert remote.detail == "sold out"
        assert remote.data["left"] == 0


async def test_a_cancellation_passes(clock: ManualClock, desk: Desk) -> None:
    @desk.serves(STOCK)
    async def stock(sku: str) -> int:
        await clock.sleep(100.0)
        return 1

    call = asyncio.create_task(LocalTransport(desk, clock).send(work_of(STOCK, "tea", clock)))
    await clock.rest()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_only_operations_can_be_called(clock: ManualClock, desk: Desk) -> None:
    event: Any = Event("orders.placed", str)
    transport = LocalTransport(desk, clock)
    with pytest.raises(Misuse):
        await transport.send(work_of(event, "x", clock))
    assert transport.has_timer
    await transport.close()
