"""The worker and a consumer that has gone silent."""

from __future__ import annotations

import asyncio

from worker_parts import ORDERED, PLAIN, Stage, delivery, on_stage

from callcast.ports.broker import Lag
from callcast.ports.observer import ConsumerRebuilt


@on_stage()
async def test_a_consumer_without_progress_while_messages_wait_is_built_anew(
    stage: Stage,
) -> None:
    stage.feed.lag_now = Lag(ready=5)
    worker = await stage.worker()
    await stage.clock.advance(29)
    assert len(stage.feed.consumers) == 1
    await stage.clock.advance(6)
    assert len(stage.feed.consumers) == 2
    assert stage.feed.consumers[0].is_closed
    (fact,) = stage.observer.of(ConsumerRebuilt)
    assert fact == ConsumerRebuilt(str(PLAIN), 30.0)
    assert worker.state == "stalled"
    assert not worker.is_healthy
    await stage.give(delivery("1"))
    assert stage.consumer.verdicts == [("1", "Done")]
    assert worker.state == "running"


@on_stage()
async def test_while_nothing_waits_silence_is_peace(stage: Stage) -> None:
    worker = await stage.worker()
    await stage.clock.advance(200)
    assert len(stage.feed.consumers) == 1
    assert worker.state == "running"


@on_stage()
async def test_a_paused_source_is_no_ones_fault(stage: Stage) -> None:
    stage.feed.lag_now = Lag(ready=5, paused=True)
    await stage.worker()
    await stage.clock.advance(200)
    assert len(stage.feed.consumers) == 1


@on_stage(ORDERED)
async def test_ready_messages_behind_a_key_held_elsewhere_are_no_fault(stage: Stage) -> None:
    stage.feed.lag_now = Lag(ready=5, leased=1)
    await stage.worker()
    await stage.clock.advance(200)
    assert len(stage.feed.consumers) == 1


@on_stage()
async def test_a_handler_that_runs_is_no_silence(stage: Stage) -> None:
    stage.feed.lag_now = Lag(ready=5)
    stage.held = {"1"}
    await stage.worker()
    await stage.give(delivery("1"))
    await stage.clock.advance(200)
    assert len(stage.feed.consumers) == 1
    stage.let("1")


@on_stage()
async def test_a_settle_that_hangs_is_silence(stage: Stage) -> None:
    worker = await stage.worker()
    stage.consumer.hold_settles = asyncio.Event()
    await stage.give(delivery("1"))
    await stage.clock.advance(40)
    assert len(stage.feed.consumers) == 2
    assert worker.is_idle


@on_stage()
async def test_a_broker_that_cannot_count_is_not_asked_twice_at_once(stage: Stage) -> None:
    stage.feed.lag_now = OSError("no")
    worker = await stage.worker()
    await stage.clock.advance(40)
    assert len(stage.feed.consumers) == 1
    assert worker.state == "running"


@on_stage()
async def test_a_consumer_that_cannot_be_had_is_asked_for_again(stage: Stage) -> None:
    stage.feed.lag_now = Lag(ready=5)
    worker = await stage.worker()
    stage.feed.refusals = [OSError("no broker"), OSError("no broker")]
    await stage.clock.advance(35)
    assert worker.state == "stalled"
    assert worker.trouble is None
    await stage.clock.advance(5)
    assert len(stage.feed.consumers) == 2
    await stage.give(delivery("1"))
    assert worker.state == "running"


@on_stage()
async def test_it_can_be_drained_while_it_waits_for_a_consumer(stage: Stage) -> None:
    stage.feed.lag_now = Lag(ready=5)
    worker = await stage.worker()
    stage.feed.refusals = [OSError("no broker") for _ in range(1000)]
    await stage.clock.advance(40)
    assert worker.is_idle
    await worker.drain(stage.clock.now() + 5)
    assert worker.state == "closed"
