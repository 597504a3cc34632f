"""Deadlines that are inherited, and bounds on one run and on one attempt."""

from __future__ import annotations

import asyncio

import pytest
from policies_kit import a_call, a_context, a_delivery

from callcast.core.errors import Expired, Unanswered
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Work
from callcast.policies.deadline import Deadline, ServedDeadline, earlier
from callcast.policies.timeout import AttemptTimeout, Timeout
from callcast.testing.clock import ManualClock

NOW = 1_000.0


async def seen(work: Work) -> Work:
    return work


@pytest.mark.parametrize(
    ("own", "inherited", "default", "cap", "effective"),
    [
        (None, None, None, None, None),
        (NOW + 5, None, None, None, NOW + 5),
        (None, None, 2.0, None, NOW + 2),
        (NOW + 5, None, 2.0, None, NOW + 5),  # its own replaces the default
        (NOW + 5, NOW + 3, None, None, NOW + 3),
        (NOW + 5, NOW + 9, None, None, NOW + 5),
        (None, NOW + 3, None, None, NOW + 3),
        (None, NOW + 3, 1.0, None, NOW + 1),
        (NOW + 5, None, None, 4.0, NOW + 4),
        (NOW + 5, NOW + 3, None, 4.0, NOW + 3),
        (None, None, None, 4.0, NOW + 4),
    ],
)
async def test_the_earliest_deadline_holds(
    own: float | None,
    inherited: float | None,
    default: float | None,
    cap: float | None,
    effective: float | None,
) -> None:
    layer = Deadline(default, clock=ManualClock(now=NOW), cap=cap)
    work = a_call(deadline=own, context=a_context(inherited))
    assert (await layer(work, seen)).deadline == effective
    if inherited is None:
        assert (await layer(a_call(deadline=own), seen)).deadline == effective


async def test_work_whose_deadline_stands_is_passed_on_as_it_is() -> None:
    layer = Deadline(clock=ManualClock(now=NOW))
    work = a_call(deadline=NOW + 1)
    assert await layer(work, seen) is work
    bare = a_call()
    assert await layer(bare, seen) is bare


@pytest.mark.parametrize("left", [-5.0, 0.0, 0.000_9])
async def test_without_a_millisecond_left_nothing_is_sent(left: float) -> None:
    layer = Deadline(clock=ManualClock(now=NOW))
    with pytest.raises(Expired, match="nothing was sent") as caught:
        await layer(a_call(deadline=NOW + left), seen)
    assert caught.value.id == "call-1"
    attempt = AttemptTimeout(None, clock=ManualClock(now=NOW), has_timer=True)
    with pytest.raises(Expired):
        await attempt(a_call(deadline=NOW + left), seen)


def test_of_two_times_none_is_never() -> None:
    assert earlier(None, None) is None
    assert earlier(1.0, None) == 1.0
    assert earlier(None, 2.0) == 2.0
    assert earlier(1.0, 2.0) == earlier(2.0, 1.0) == 1.0


def test_layers_say_what_they_are_set_to() -> None:
    clock = ManualClock()
    assert repr(Deadline(2.5, clock=clock)) == "Deadline(2.5 s)"
    assert repr(Deadline(2.5, clock=clock, cap=1.0)) == "Deadline(1 s)"
    assert repr(Deadline(clock=clock)) == "Deadline(inherited)"
    assert repr(AttemptTimeout(0.5, clock=clock, has_timer=True)) == "AttemptTimeout(0.5 s)"
    assert repr(AttemptTimeout(None, clock=clock, has_timer=True)) == "AttemptTimeout(the deadline)"


@pytest.mark.parametrize(
    ("limit", "share", "deadline", "until"),
    [
        (None, 0.0, None, None),
        (0.5, 0.0, None, NOW + 0.5),
        (None, 0.0, NOW + 2, NOW + 2),
        (0.5, 0.0, NOW + 2, NOW + 0.5),
        (0.5, 0.0, NOW + 0.25, NOW + 0.25),
        (0.5, 0.5, NOW + 1, NOW + 0.5),
        (0.5, 0.5, NOW + 8, NOW + 4),  # a longer call has longer attempts
        (0.5, 0.5, NOW + 0.75, NOW + 0.5),
    ],
)
async def test_an_attempt_is_bounded_by_its_limit_and_the_deadline(
    limit: float | None, share: float, deadline: float | None, until: float | None
) -> None:
    layer = AttemptTimeout(limit, clock=ManualClock(now=NOW), has_timer=True, share=share)
    assert (await layer(a_call(deadline=deadline), seen)).until == until


async def test_an_attempt_that_takes_too_long_is_unanswered() -> None:
    clock = ManualClock(now=NOW)
    layer = AttemptTimeout(0.5, clock=clock, has_timer=False)

    async def slow(work: Work) -> None:
        assert work.until == NOW + 0.5
        await clock.sleep(60.0)

    task = asyncio.ensure_future(layer(a_call(attempt=2), slow))
    await clock.advance(0.5)
    with pytest.raises(Unanswered, match=r"no answer within 0.500 s \(attempt 2\)") as caught:
        await task
    assert caught.value.id == "call-1"
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert clock.now() == NOW + 0.5


async def test_a_timeout_of_the_callee_surfaces_as_it_is() -> None:
    clock = ManualClock(now=NOW)
    own = TimeoutError("socket")

    async def fails(work: Work) -> Outcome:
        raise own

    for layer in (
        AttemptTimeout(0.5, clock=clock, has_timer=False),
        Timeout(0.5, clock=clock),
        ServedDeadline(clock),
    ):
        with pytest.raises(TimeoutError) as caught:
            await layer(a_call(deadline=NOW + 1), fails)
        assert caught.value is own


async def test_a_transport_with_a_timer_is_trusted_with_the_bound() -> None:
    class NoTimers(ManualClock):
        def expire_at(self, when: float, *, coarse: bool = True) -> object:  # type: ignore[override]
            raise AssertionError("a timer was armed")

    layer = AttemptTimeout(0.5, clock=NoTimers(now=NOW), has_timer=True)
    assert (await layer(a_call(), seen)).until == NOW + 0.5


async def test_a_call_in_time_is_answered() -> None:
    clock = ManualClock(now=NOW)
    layer = AttemptTimeout(0.5, clock=clock, has_timer=False)
    assert (await layer(a_call(), seen)).until == NOW + 0.5


async def test_cancelling_a_bounded_call_is_a_cancellation() -> None:
    clock = ManualClock(now=NOW)
    layer = AttemptTimeout(0.5, clock=clock, has_timer=False)

    async def slow(work: Work) -> None:
        await clock.sleep(60.0)

    task = asyncio.ensure_future(layer(a_call(), slow))
    await clock.rest()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_that_arrives_expired_does_not_run() -> None:
    layer = ServedDeadline(ManualClock(now=NOW))
    with pytest.raises(Expired):
        await layer(a_call(deadline=NOW), seen)


async def test_a_request_that_is_late_is_cancelled_with_its_children() -> None:
    clock = ManualClock(now=NOW)
    cancelled: list[str] = []

    async def child() -> None:
        try:
            await clock.sleep(60.0)
        except asyncio.CancelledError:
            cancelled.append("child")
            raise

    async def handler(work: Work) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    layer = ServedDeadline(clock)
    task = asyncio.ensure_future(layer(a_call(deadline=NOW + 2), handler))
    await clock.advance(2.0)
    with pytest.raises(Unanswered, match="the caller's deadline passed"):
        await task
    assert cancelled == ["child"]


async def test_a_request_without_a_deadline_is_served() -> None:
    layer = ServedDeadline(ManualClock(now=NOW))
    work = a_call()
    assert await layer(work, seen) is work
    bounded = a_call(deadline=NOW + 1)
    assert await layer(bounded, seen) is bounded


@pytest.mark.parametrize(
    ("deadline", "ends"), [(None, 300.0), (NOW + 20, 20.0), (NOW + 900, 300.0)]
)
async def test_a_run_ends_at_its_timeout_or_at_the_end_of_its_delivery(
    deadline: float | None, ends: float
) -> None:
    clock = ManualClock(now=NOW)
    layer = Timeout(300.0, clock=clock)

    async def hangs(work: Work) -> Outcome:
        await clock.sleep(1e6)
        return DONE

    task = asyncio.ensure_future(layer(a_call(deadline=deadline), hangs))
    await clock.advance(ends - 0.001)
    assert not task.done()
    await clock.advance(0.001)
    with pytest.raises(TimeoutError, match="cancelled at its timeout of 300 s"):
        await task


async def test_a_run_in_time_is_done() -> None:
    async def handle(work: Work) -> Outcome:
        return DONE

    assert await Timeout(300.0, clock=ManualClock())(a_delivery(), handle) is DONE


async def test_a_handler_that_waits_and_then_ends_late_by_itself_keeps_its_own_error() -> None:
    clock = ManualClock(now=NOW)
    own = TimeoutError("socket")

    async def fails(work: Work) -> Outcome:
        await clock.sleep(1.0)
        raise own

    task = asyncio.ensure_future(Timeout(300.0, clock=clock)(a_delivery(), fails))
    await clock.advance(1.0)
    with pytest.raises(TimeoutError) as caught:
        await task
    assert caught.value is own


async def test_a_handler_that_ends_at_once_when_cancelled_is_done() -> None:
    clock = ManualClock(now=NOW)

    async def cleans_up(work: Work) -> Outcome:
        try:
            await clock.sleep(1.0)
        except asyncio.CancelledError:
            return DONE
        raise AssertionError("not cancelled")

    task = asyncio.ensure_future(Timeout(300.0, clock=clock)(a_delivery(), cleans_up))
    await clock.rest()
    task.cancel()
    assert await task is DONE


async def test_a_handler_that_waits_once_more_when_cancelled_ends_after_that() -> None:
    clock = ManualClock(now=NOW)

    async def cleans_up_slowly(work: Work) -> Outcome:
        try:
            await clock.sleep(1.0)
        except asyncio.CancelledError:
            await clock.sleep(2.0)
            return DONE
        raise AssertionError("not cancelled")

    task = asyncio.ensure_future(Timeout(300.0, clock=clock)(a_delivery(), cleans_up_slowly))
    await clock.rest()
    task.cancel()
    await clock.rest()
    assert not task.done()
    await clock.advance(2.0)
    assert await task is DONE
