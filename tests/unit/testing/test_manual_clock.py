"""The clock that tests move by hand."""

import asyncio

import pytest

from callcast.ports.clock import Clock
from callcast.testing.clock import ManualClock


async def test_sleepers_wake_in_the_order_of_their_times_and_see_them() -> None:
    clock: Clock = ManualClock(now=0.0)
    assert isinstance(clock, ManualClock)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, delay: float) -> None:
        await clock.sleep(delay)
        woken.append((name, clock.now()))

    tasks = [asyncio.create_task(sleeper(n, d)) for n, d in [("c", 3.0), ("a", 1.0), ("b", 2.0)]]
    await clock.advance(2.5)
    assert woken == [("a", 1.0), ("b", 2.0)]
    assert clock.now() == 2.5
    await clock.advance(0.5)
    assert woken[-1] == ("c", 3.0)
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_sleeps_again_on_the_way_wakes_on_the_way() -> None:
    clock = ManualClock(now=0.0)
    times: list[float] = []

    async def ticker() -> None:
        while True:
            await clock.sleep(1.0)
            times.append(clock.now())

    task = asyncio.create_task(ticker())
    await clock.advance(3.0)
    assert times == [1.0, 2.0, 3.0]
    task.cancel()


async def test_sleeping_no_time_lets_the_loop_turn() -> None:
    clock = ManualClock()
    await clock.sleep(0)


async def test_the_wall_moves_with_the_clock_and_can_be_stepped_alone() -> None:
    clock = ManualClock(now=5.0, wall=100.0)
    await clock.advance(2.0)
    assert clock.wall() == 102.0
    clock.step_wall(-50.0)
    assert clock.wall() == 52.0
    assert clock.now() == 7.0


async def test_a_block_expires_at_its_time() -> None:
    clock = ManualClock(now=0.0)

    async def block() -> float:
        try:
            with clock.expire_at(2.0):
                await clock.sleep(10.0)
        except TimeoutError:
            return clock.now()
        return -1.0

    task = asyncio.create_task(block())
    await clock.advance(5.0)
    assert await task == 2.0
    await clock.advance(10.0)  # the sleeper's alarm rings for nobody


async def test_a_block_that_ended_in_time_is_left_alone() -> None:
    clock = ManualClock(now=0.0)
    with clock.expire_at(2.0):
        pass
    await clock.advance(5.0)


async def test_a_block_whose_time_is_past_expires_at_its_first_await() -> None:
    clock = ManualClock(now=3.0)
    with pytest.raises(TimeoutError), clock.expire_at(2.0):
        await asyncio.Event().wait()


async def test_a_cancellation_from_elsewhere_passes_as_it_is() -> None:
    clock = ManualClock(now=0.0)

    async def block() -> None:
        with clock.expire_at(2.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await clock.rest()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    both = asyncio.create_task(block())
    await clock.rest()
    both.cancel()
    clock._alarms[-1][2]()  # the alarm rings in the same turn
    with pytest.raises(asyncio.CancelledError):
        await both


async def test_another_error_of_an_expired_block_passes_as_it_is() -> None:
    clock = ManualClock(now=0.0)

    async def block() -> None:
        with clock.expire_at(2.0):
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError

    task = asyncio.create_task(block())
    await clock.advance(2.0)
    with pytest.raises(ValueError):
        await task


async def test_tasks_that_never_rest_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callcast.testing.clock.TURNS_MAX", 100)
    clock = ManualClock()

    async def restless() -> None:
        while True:
            await clock.sleep(0)

    task = asyncio.create_task(restless())
    with pytest.raises(RuntimeError, match="did not come to rest"):
        await clock.advance(1.0)
    task.cancel()


async def test_a_loop_that_hides_its_queue_gets_a_number_of_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock(now=0.0)
    woken: list[float] = []

    async def sleeper() -> None:
        await clock.sleep(1.0)
        woken.append(clock.now())

    task = asyncio.create_task(sleeper())

    class Opaque:
        create_future = staticmethod(asyncio.get_running_loop().create_future)

    monkeypatch.setattr("callcast.testing.clock.asyncio.get_running_loop", Opaque)
    await clock.advance(1.0)
    assert woken == [1.0]
    await task


def test_a_block_outside_a_task_is_an_error() -> None:
    async def nothing() -> None:
        return

    loop = asyncio.new_event_loop()
    caught: list[BaseException] = []

    def callback() -> None:
        try:
            with ManualClock().expire_at(1.0):
                pass
        except RuntimeError as error:
            caught.append(error)

    loop.call_soon(callback)
    loop.run_until_complete(nothing())
    loop.close()
    assert len(caught) == 1
