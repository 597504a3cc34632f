"""`AsyncioTasks`, `AsyncioGate` and `AsyncioRace`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextvars import ContextVar

import pytest

from callcast.core.context import AMBIENT, Context
from callcast.core.errors import Misuse
from callcast.runtime.tasks import AsyncioGate, AsyncioRace, AsyncioTasks

Failures = list[tuple[str, BaseException]]


@pytest.fixture
def failures() -> Failures:
    return []


@pytest.fixture
async def tasks(failures: Failures) -> AsyncIterator[AsyncioTasks]:
    tasks = AsyncioTasks(lambda name, error: failures.append((name, error)))
    yield tasks
    await tasks.close()


async def test_a_child_runs_though_nobody_holds_it(tasks: AsyncioTasks) -> None:
    ran = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        ran.set()

    tasks.start(work(), name="work")
    gc.collect()
    await asyncio.wait_for(ran.wait(), 5)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_what_a_child_fails_with_is_told_by_its_name(
    tasks: AsyncioTasks, failures: Failures, error: BaseException
) -> None:
    async def work() -> None:
        raise error

    child = tasks.start(work(), name="worker a/b")
    assert not child.done
    await child.wait()
    assert child.done
    assert failures == [("worker a/b", error)]


async def test_a_child_does_not_speak_in_the_name_of_the_work_that_started_it(
    tasks: AsyncioTasks,
) -> None:
    kept: ContextVar[str] = ContextVar("kept")
    seen: list[object] = []

    async def work() -> None:
        seen.extend((AMBIENT.get(), kept.get()))

    kept.set("the program's own")
    context = Context("m-1", "c-1")
    token = AMBIENT.set(context)
    await tasks.start(work(), name="work").wait()
    assert seen == [None, "the program's own"]
    assert AMBIENT.get() is context
    AMBIENT.reset(token)


async def test_a_cancelled_child_is_no_failure(tasks: AsyncioTasks, failures: Failures) -> None:
    child = tasks.start(asyncio.sleep(30), name="sleeper")
    child.cancel()
    await child.wait()
    assert child.done
    assert failures == []


async def test_cancelling_the_wait_leaves_the_child_alone(tasks: AsyncioTasks) -> None:
    child = tasks.start(asyncio.sleep(30), name="sleeper")
    waiter = asyncio.ensure_future(child.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not child.done
    await tasks.close()


async def test_closing_ends_also_the_children_that_children_start(
    tasks: AsyncioTasks, failures: Failures
) -> None:
    ended: list[str] = []

    async def sleeper(name: str) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(name)
            if name == "parent":
                tasks.start(sleeper("heir"), name="heir")
                await asyncio.sleep(0)

    tasks.start(sleeper("parent"), name="parent")
    await asyncio.sleep(0)
    await tasks.close()
    await tasks.close()
    assert ended == ["parent", "heir"]
    assert failures == []


async def test_a_child_may_close_the_others(tasks: AsyncioTasks) -> None:
    other = tasks.start(asyncio.sleep(30), name="other")
    closer = tasks.start(tasks.close(), name="closer")
    await asyncio.wait_for(closer.wait(), 5)
    assert other.done


async def test_a_gate_lets_through_while_it_is_open() -> None:
    gate = AsyncioGate()
    waiting = asyncio.ensure_future(gate.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.open()
    await waiting
    await gate.wait()
    gate.shut()
    waiting = asyncio.ensure_future(gate.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.open()
    await waiting


async def test_the_first_wins_and_the_rest_are_cancelled_and_awaited() -> None:
    ended: list[str] = []

    async def slow() -> str:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("slow")
        return "slow"

    async def fast() -> str:
        await asyncio.sleep(0)
        return "fast"

    assert await AsyncioRace().first([slow, fast]) == "fast"
    assert ended == ["slow"]


async def test_of_several_at_once_the_earliest_listed_wins() -> None:
    async def say(word: str) -> str:
        return word

    assert await AsyncioRace().first([lambda: say("a"), lambda: say("b")]) == "a"


async def test_the_first_error_is_the_races_and_a_losers_is_nobodys() -> None:
    async def fails() -> None:
        raise ValueError("first")

    async def fails_at_its_end() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise KeyError("late")

    with pytest.raises(ValueError, match="first"):
        await AsyncioRace().first([fails_at_its_end, fails])
    gc.collect()  # a loser's error that nobody had looked at would be a warning now


async def test_a_cancelled_race_ends_its_runners() -> None:
    ended: list[int] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(1)

    race = asyncio.ensure_future(AsyncioRace().first([slow, slow]))
    await asyncio.sleep(0.01)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert ended == [1, 1]


async def test_a_race_of_nobody_is_misuse() -> None:
    with pytest.raises(Misuse):
        await AsyncioRace().first([])
