"""`AsyncioClock`: time, sleep, and the two ways a block expires."""

from __future__ import annotations

import asyncio
import time

import pytest

from callcast.core.errors import Misuse
from callcast.runtime.clock import TICK, AsyncioClock


@pytest.fixture
def clock() -> AsyncioClock:
    return AsyncioClock()


def test_now_is_the_monotonic_clock_and_wall_the_epoch(clock: AsyncioClock) -> None:
    before, wall = time.monotonic(), time.time()
    assert before <= clock.now() <= time.monotonic()
    assert wall <= clock.wall() <= time.time()


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.02])
async def test_a_sleep_is_never_early(clock: AsyncioClock, delay: float) -> None:
    for _ in range(5):
        start = clock.now()
        await clock.sleep(delay)
        assert clock.now() - start >= delay


async def test_a_sleep_cut_short_by_the_loop_goes_on(
    clock: AsyncioClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = asyncio.sleep

    async def hasty(delay: float) -> None:
        await real(delay / 2)

    monkeypatch.setattr(asyncio, "sleep", hasty)
    start = clock.now()
    await clock.sleep(0.02)
    assert clock.now() - start >= 0.02


@pytest.mark.parametrize("coarse", [True, False])
async def test_a_block_expires_with_a_timeout_never_early(
    clock: AsyncioClock, *, coarse: bool
) -> None:
    when = clock.now() + 0.05
    with pytest.raises(TimeoutError), clock.expire_at(when, coarse=coarse):
        await asyncio.sleep(30)
    assert when <= clock.now() < when + TICK + 1.0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("coarse", [True, False])
async def test_a_time_already_past_expires_at_the_first_wait(
    clock: AsyncioClock, *, coarse: bool
) -> None:
    with pytest.raises(TimeoutError), clock.expire_at(clock.now() - 1, coarse=coarse):
        await asyncio.sleep(30)


@pytest.mark.parametrize("coarse", [True, False])
async def test_a_block_that_ends_in_time_is_left_alone(
    clock: AsyncioClock, *, coarse: bool
) -> None:
    with clock.expire_at(clock.now() + 0.01, coarse=coarse):
        pass
    await asyncio.sleep(2 * TICK)  # cancelled here if the expiry had outlived its block


@pytest.mark.parametrize("coarse", [True, False])
async def test_a_cancellation_from_elsewhere_passes(clock: AsyncioClock, *, coarse: bool) -> None:
    async def bounded() -> None:
        with clock.expire_at(clock.now() + 60, coarse=coarse):
            await asyncio.sleep(30)

    task = asyncio.ensure_future(bounded())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("coarse", [True, False])
async def test_when_both_ask_the_cancellation_from_elsewhere_wins(
    clock: AsyncioClock, *, coarse: bool
) -> None:
    async def bounded() -> None:
        with clock.expire_at(clock.now(), coarse=coarse):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(30)  # the second request ends this one

    task = asyncio.ensure_future(bounded())
    await asyncio.sleep(2 * TICK)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("coarse", [True, False])
async def test_an_error_in_the_block_passes_though_it_expired(
    clock: AsyncioClock, *, coarse: bool
) -> None:
    with pytest.raises(ValueError, match="mine"), clock.expire_at(clock.now(), coarse=coarse):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise ValueError("mine") from None


async def test_an_inner_expiry_leaves_the_outer_one_armed(clock: AsyncioClock) -> None:
    with pytest.raises(TimeoutError), clock.expire_at(clock.now() + 0.05):
        with pytest.raises(TimeoutError), clock.expire_at(clock.now() + 0.01, coarse=False):
            await asyncio.sleep(30)
        await asyncio.sleep(30)


async def test_the_tick_stops_when_nothing_is_registered(clock: AsyncioClock) -> None:
    with clock.expire_at(clock.now() + 60):
        ticker = clock.latest
        assert ticker is not None
        assert ticker.is_armed
        await asyncio.sleep(1.5 * TICK)
        assert ticker.is_armed
    await asyncio.sleep(1.5 * TICK)
    assert not ticker.is_armed


def test_one_clock_serves_several_loops_in_turn(clock: AsyncioClock) -> None:
    async def expires() -> None:
        with pytest.raises(TimeoutError), clock.expire_at(clock.now()):
            await asyncio.sleep(30)

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        for loop in (first, second, first):
            loop.run_until_complete(expires())
    finally:
        first.close()
        second.close()


async def test_a_fine_timer_on_a_coarse_loop_waits_again(clock: AsyncioClock) -> None:
    when = clock.now() + 0.05
    with pytest.raises(TimeoutError), clock.expire_at(when, coarse=False):
        ticker = clock.latest
        assert ticker is not None
        ticker.ring()  # as a loop that wakes early would
        await asyncio.sleep(30)
    assert clock.now() >= when


async def test_fine_expiries_share_one_alarm_set_to_the_earliest(clock: AsyncioClock) -> None:
    start = clock.now()
    with clock.expire_at(start + 60, coarse=False):
        ticker = clock.latest
        assert ticker is not None
        assert ticker.rings_at == start + 60
        with clock.expire_at(start + 90, coarse=False):
            assert ticker.rings_at == start + 60
        with pytest.raises(TimeoutError), clock.expire_at(start + 0.02, coarse=False):
            assert ticker.rings_at == start + 0.02
            await asyncio.sleep(30)
        assert ticker.rings_at == start + 60
    assert not ticker.fine
    ticker.ring()
    assert ticker.rings_at == float("inf")


async def test_fine_expiries_are_never_early_and_in_time_however_they_overlap(
    clock: AsyncioClock,
) -> None:
    late: list[float] = []

    async def one(number: int) -> None:
        for turn in range(5):
            when = clock.now() + 0.005 * (1 + (number * 7 + turn * 3) % 11)
            if (number + turn) % 3:
                with pytest.raises(TimeoutError), clock.expire_at(when, coarse=False):
                    await asyncio.sleep(30)
                late.append(clock.now() - when)
            else:
                with clock.expire_at(when, coarse=False):
                    await asyncio.sleep(0)

    await asyncio.gather(*[one(number) for number in range(30)])
    assert len(late) == 100
    assert min(late) >= 0.0
    assert sorted(late)[50] < 0.05


def test_a_clock_lets_go_of_closed_loops(clock: AsyncioClock) -> None:
    async def bounded() -> None:
        with clock.expire_at(clock.now() + 60, coarse=False):
            await asyncio.sleep(0)

    for _ in range(5):
        asyncio.run(bounded())
    assert len(clock._tickers) == 1


@pytest.mark.parametrize("coarse", [True, False])
async def test_outside_a_task_it_is_misuse(clock: AsyncioClock, *, coarse: bool) -> None:
    seen: list[BaseException] = []

    def enter() -> None:
        try:
            with clock.expire_at(clock.now(), coarse=coarse):
                pass
        except Misuse as error:
            seen.append(error)

    asyncio.get_running_loop().call_soon(enter)
    await asyncio.sleep(0.01)
    assert len(seen) == 1
