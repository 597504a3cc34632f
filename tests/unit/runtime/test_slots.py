"""Slots: contexts, fairness, blocking, and what escapes a handler."""

from __future__ import annotations

import asyncio
import contextvars
import time

import pytest
from worker_parts import Stage, delivery, on_stage, ports_with

from callcast.core.context import AMBIENT, Context
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Work
from callcast.ports.observer import LoopBlocked
from callcast.runtime.clock import AsyncioClock

SPAN: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="none")


@pytest.mark.parametrize("suspends", [True, False])
@on_stage()
async def test_what_one_handler_sets_the_next_does_not_see(stage: Stage, *, suspends: bool) -> None:
    seen: list[tuple[str, Context | None, str]] = []

    async def run(work: Work) -> Outcome:
        before = SPAN.get(), AMBIENT.get()
        SPAN.set(work.id)
        AMBIENT.set(Context(work.id, "c"))
        if suspends:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        seen.append((*before, SPAN.get()))
        return DONE

    await stage.worker(run=run, slots=3)
    for number in range(3):
        await stage.give(*(delivery(f"{number}{each}") for each in range(3)))
    assert len(seen) == 9
    assert all((span, ambient) == ("none", None) for span, ambient, _ in seen)
    assert sorted(after for *_, after in seen) == sorted(
        f"{n}{e}" for n in range(3) for e in range(3)
    )
    assert SPAN.get() == "none"


@on_stage()
async def test_what_the_program_set_before_the_start_is_seen_but_no_ambient_work(
    stage: Stage,
) -> None:
    seen: list[tuple[str, Context | None]] = []

    async def run(work: Work) -> Outcome:
        seen.append((SPAN.get(), AMBIENT.get()))
        return DONE

    span, ambient = SPAN.set("program"), AMBIENT.set(Context("outer", "c"))
    try:
        await stage.worker(run=run)
        await stage.give(delivery("1"))
    finally:
        SPAN.reset(span)
        AMBIENT.reset(ambient)
    assert seen == [("program", None)]


@on_stage()
async def test_a_child_task_of_a_handler_inherits_its_context(stage: Stage) -> None:
    async def run(work: Work) -> Outcome:
        SPAN.set(work.id)
        await asyncio.sleep(0)

        async def child() -> str:
            return SPAN.get()

        return Dead(await asyncio.ensure_future(child()))

    await stage.worker(run=run)
    await stage.give(delivery("mine"))
    assert stage.consumer.outcome("mine") == Dead("mine")


@on_stage()
async def test_handlers_that_suspend_run_side_by_side_in_few_slots(stage: Stage) -> None:
    names = {str(number) for number in range(10)}
    stage.held = set(names)
    await stage.worker(slots=10)
    await stage.give(*(delivery(name) for name in sorted(names)))
    assert len(stage.began) == 10
    for name in names:
        stage.let(name)
    await stage.clock.rest()
    assert {name for name, _ in stage.consumer.verdicts} == names


@on_stage()
async def test_handlers_that_do_not_suspend_share_one_slot(stage: Stage) -> None:
    await stage.worker(slots=64)
    await stage.give(*(delivery(str(number)) for number in range(50)))
    assert len(stage.consumer.verdicts) == 50
    assert _slots() == 1


def _slots() -> int:
    return sum(task.get_name().startswith("slot of") for task in asyncio.all_tasks())


@on_stage()
async def test_a_long_run_of_handlers_lets_others_run_every_few_milliseconds(
    stage: Stage,
) -> None:
    stage.ports = ports_with(AsyncioClock(), stage.observer)
    turns = 0
    order: list[str] = []

    async def run(work: Work) -> Outcome:
        time.sleep(0.003)
        order.append(work.id)
        return DONE

    async def other() -> None:
        nonlocal turns
        while len(order) < 20:
            await asyncio.sleep(0)
            turns += 1

    await stage.worker(run=run)
    beside = asyncio.ensure_future(other())
    stage.consumer.put(*(delivery(str(number)) for number in range(20)))
    await beside
    await asyncio.sleep(0)
    assert turns >= 8
    assert order == [str(number) for number in range(20)]


@pytest.mark.parametrize("suspends", [0, 1, 2])
@on_stage()
async def test_a_handler_that_blocks_the_loop_is_named(stage: Stage, *, suspends: int) -> None:
    """Before, between and after its suspensions."""
    stage.ports = ports_with(AsyncioClock(), stage.observer)
    done = asyncio.Event()

    async def run(work: Work) -> Outcome:
        for _ in range(suspends):
            await asyncio.sleep(0)
        time.sleep(0.12)
        if suspends == 2:
            await asyncio.sleep(0)
        done.set()
        return DONE

    await stage.worker(run=run)
    stage.consumer.put(delivery("1"))
    await done.wait()
    await asyncio.sleep(0)
    assert stage.observer.named(LoopBlocked) == ["1"]
    (fact,) = stage.observer.of(LoopBlocked)
    assert isinstance(fact, LoopBlocked)
    assert fact.handler == "shop.mail (mail.py:7)"
    assert 0.12 <= fact.took < 5


@on_stage()
async def test_a_handler_that_only_waits_blocks_nobody(stage: Stage) -> None:
    stage.ports = ports_with(AsyncioClock(), stage.observer)

    async def run(work: Work) -> Outcome:
        await asyncio.sleep(0.15)
        return DONE

    await stage.worker(run=run)
    stage.consumer.put(delivery("1"))
    await asyncio.sleep(0.2)
    assert stage.consumer.verdicts == [("1", "Done")]
    assert stage.observer.of(LoopBlocked) == []


@pytest.mark.parametrize("suspends", [True, False])
@on_stage()
async def test_a_cancellation_that_nobody_asked_for_is_counted(
    stage: Stage, *, suspends: bool
) -> None:
    async def run(work: Work) -> Outcome:
        if work.id == "2":
            return DONE
        if suspends:
            await asyncio.sleep(0)
        raise asyncio.CancelledError

    await stage.worker(run=run)
    await stage.give(delivery("1"), delivery("2"))
    await stage.give(delivery("2"))
    assert isinstance(stage.consumer.outcome("1"), Later)
    assert [word for name, word in stage.consumer.verdicts if name == "2"] == ["Done", "Done"]


@pytest.mark.parametrize("waits", [True, False])
@on_stage()
async def test_a_handler_that_cancels_its_own_task_ends_one_slot_and_no_worker(
    stage: Stage, *, waits: bool
) -> None:
    async def run(work: Work) -> Outcome:
        if work.id == "1":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if waits:
                await asyncio.sleep(0)
        return DONE

    await stage.worker(run=run, slots=1)
    await stage.give(delivery("1"))
    await stage.give(delivery("2"))
    assert isinstance(stage.consumer.outcome("1"), Later) is waits
    assert stage.consumer.verdicts[-1] == ("2", "Done")


@on_stage()
async def test_what_is_ready_when_a_slot_ends_is_run_by_another(stage: Stage) -> None:
    async def run(work: Work) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return DONE

    await stage.worker(run=run)
    await stage.give(*(delivery(str(number)) for number in range(5)))
    assert len(stage.consumer.verdicts) == 5


@on_stage()
async def test_a_chain_that_raises_nonetheless_gets_a_verdict(stage: Stage) -> None:
    stage.answers["1"] = RuntimeError("a layer is broken")
    worker = await stage.worker()
    await stage.give(delivery("1"), delivery("2"))
    outcome = stage.consumer.outcome("1")
    assert isinstance(outcome, Later)
    assert "a layer is broken" in outcome.reason
    assert worker.state == "running"


@on_stage()
async def test_a_handler_sees_its_cancellation_and_may_clean_up(stage: Stage) -> None:
    cleaned: list[str] = []

    async def run(work: Work) -> Outcome:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.append(SPAN.get())
        return DONE

    worker = await stage.worker(run=run)
    await stage.give(delivery("1"))
    await worker.drain(stage.clock.now())
    assert cleaned == ["none"]
    assert stage.consumer.outcome("1") == Release(reason="stopped")
