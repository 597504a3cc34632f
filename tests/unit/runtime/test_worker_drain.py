"""How a worker ends."""

from __future__ import annotations

import asyncio

import pytest
from worker_parts import ORDERED, Stage, delivery, on_stage

from callcast.core.errors import Misuse
from callcast.core.outcome import Later, Release


@on_stage()
async def test_what_runs_is_finished_and_settled(stage: Stage) -> None:
    stage.held = {"1"}
    worker = await stage.worker()
    await stage.give(delivery("1"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 25))
    await stage.clock.rest()
    assert worker.state == "draining"
    assert stage.consumer.cancelled == 1  # nothing more is fetched
    assert not stage.consumer.is_closed
    stage.let("1")
    await draining
    assert stage.consumer.verdicts == [("1", "Done")]
    assert stage.consumer.is_closed
    assert worker.state == "closed"
    assert worker.is_idle


@on_stage()
async def test_past_the_deadline_the_rest_is_cancelled_and_given_back_uncounted(
    stage: Stage,
) -> None:
    stage.held = {"1", "2"}
    worker = await stage.worker()
    await stage.give(delivery("1"), delivery("2"), delivery("3"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 25))
    await stage.clock.advance(24)
    stage.let("1")
    await stage.clock.advance(1)
    await draining
    assert stage.consumer.outcome("2") == Release(reason="stopped")
    assert dict(stage.consumer.verdicts) == {"1": "Done", "2": "Release", "3": "Done"}
    assert stage.consumer.is_closed


@on_stage(ORDERED)
async def test_what_waits_behind_its_key_is_given_back_at_once(stage: Stage) -> None:
    stage.held = {"1"}
    worker = await stage.worker()
    await stage.give(delivery("1", key="k"), delivery("2", key="k"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 25))
    await stage.clock.rest()
    assert stage.consumer.verdicts == [("2", "Release")]
    stage.let("1")
    await draining
    assert stage.began == ["1"]


@on_stage(ORDERED)
async def test_a_key_that_is_shut_while_it_ends_gives_all_back(stage: Stage) -> None:
    stage.answers["1"] = Later(5.0)
    worker = await stage.worker()
    stage.consumer.hold_settles = asyncio.Event()
    await stage.give(delivery("1", key="k"))
    await stage.give(delivery("1", key="k"), delivery("2", key="k"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 25))
    await stage.clock.rest()
    stage.consumer.hold_settles.set()
    await draining
    assert stage.began == ["1"]
    words = stage.consumer.verdicts
    assert words[0] == ("1", "Later")
    assert sorted(words[1:]) == [("1", "Release"), ("2", "Release")]


@on_stage()
async def test_it_ends_though_a_handler_will_not(stage: Stage) -> None:
    async def stubborn(work: object) -> object:
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if stage.held:
                    continue
                raise

    stage.held = {"on"}
    worker = await stage.worker(run=stubborn)
    await stage.give(delivery("1"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 1))
    for _ in range(10):
        await stage.clock.advance(5)
    await draining
    assert stage.consumer.is_closed  # which gives back what it still holds
    stage.held.clear()


@on_stage()
async def test_it_ends_though_the_broker_settles_nothing(stage: Stage) -> None:
    worker = await stage.worker()
    stage.consumer.hold_settles = asyncio.Event()
    stage.consumer.hangs_at_close = True
    await stage.give(delivery("1"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 1))
    for _ in range(10):
        await stage.clock.advance(5)
    await draining
    assert worker.state == "closed"


@on_stage()
async def test_before_the_start_there_is_nothing_to_end(stage: Stage) -> None:
    worker = await stage.worker()
    await worker.drain(stage.clock.now())
    fresh = type(worker)(stage.feed, stage.subscription(), ports=stage.ports, tasks=stage.tasks)
    assert fresh.state == "new"
    await fresh.drain(stage.clock.now())
    assert fresh.state == "closed"
    with pytest.raises(Misuse):
        await fresh.start()
    assert len(stage.feed.consumers) == 1


@on_stage()
async def test_twice_and_at_once_it_ends_once(stage: Stage) -> None:
    worker = await stage.worker()
    until = stage.clock.now() + 5
    await asyncio.gather(worker.drain(until), worker.drain(until))
    await worker.drain(until)
    assert stage.consumer.is_closed
    assert stage.consumer.cancelled == 1


@on_stage()
async def test_cancelling_the_wait_does_not_stop_the_drain(stage: Stage) -> None:
    stage.held = {"1"}
    worker = await stage.worker()
    await stage.give(delivery("1"))
    waiting = asyncio.ensure_future(worker.drain(stage.clock.now() + 25))
    await stage.clock.rest()
    waiting.cancel()
    await stage.clock.rest()
    stage.let("1")
    await stage.clock.rest()
    assert worker.state == "closed"


@on_stage()
async def test_it_ends_while_the_kill_switch_is_open(stage: Stage) -> None:
    worker = await stage.worker()
    stage.answers = {str(number): Later(10.0) for number in range(20)}
    await stage.give(*(delivery(str(number)) for number in range(20)))
    await stage.give(delivery("late"))
    assert worker.state == "paused"
    await worker.drain(stage.clock.now() + 25)
    assert worker.state == "closed"
    assert stage.consumer.is_closed


@on_stage()
async def test_a_consumer_that_fails_to_close_is_told(stage: Stage) -> None:
    worker = await stage.worker()
    stage.consumer.close_error = OSError("gone")
    await worker.drain(stage.clock.now() + 5)
    assert worker.state == "closed"
    ((name, error),) = stage.failures
    assert name == "drain of orders/mail"
    assert str(error) == "gone"


@pytest.mark.parametrize(
    ("error", "word"), [(SystemExit(3), "Later"), (KeyboardInterrupt(), "Release")]
)
@on_stage()
async def test_a_handler_that_ends_the_process_drains_the_worker_and_is_passed_on(
    stage: Stage, error: BaseException, word: str
) -> None:
    stage.held = {"slow"}
    stage.answers["exit"] = error
    worker = await stage.worker()
    await stage.give(delivery("slow"), delivery("exit"), delivery("3"))
    assert stage.failures == [("worker of orders/mail", error)]
    assert worker.state == "closed"
    assert not worker.is_healthy
    assert dict(stage.consumer.verdicts) == {"exit": word, "slow": "Release", "3": "Release"}
    assert stage.began == ["slow", "exit"]
    assert stage.consumer.is_closed


@on_stage()
async def test_the_same_during_a_drain_is_passed_on_after_it(stage: Stage) -> None:
    stage.held = {"1"}
    worker = await stage.worker()
    await stage.give(delivery("1"))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 5))
    await stage.clock.rest()
    stage.gates.pop("1").set_exception(SystemExit(1))
    await stage.clock.rest()
    await draining
    assert [(name, type(error)) for name, error in stage.failures] == [
        ("worker of orders/mail", SystemExit)
    ]


@on_stage()
async def test_a_hundred_workers_leave_nothing_behind(stage: Stage) -> None:
    for number in range(100):
        worker = await stage.worker()
        await stage.give(delivery(str(number)))
        await worker.drain(stage.clock.now() + 5)
    await stage.clock.rest()
    ours = [task for task in asyncio.all_tasks() if "orders/mail" in task.get_name()]
    assert ours == []
