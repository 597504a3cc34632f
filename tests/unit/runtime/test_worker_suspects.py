"""The worker and messages that may have killed their process."""

from __future__ import annotations

import asyncio

from worker_parts import ORDERED, Stage, delivery, on_stage

from callcast.core.outcome import Dead, Later, Release
from callcast.policies.recovery import AWAY


@on_stage()
async def test_a_suspect_runs_when_nothing_else_is_in_flight_or_unsettled(stage: Stage) -> None:
    stage.held = {"slow", "suspect"}
    await stage.worker()
    await stage.give(delivery("slow"))
    await stage.give(delivery("1"), delivery("suspect", crashes=2), delivery("2"))
    assert stage.consumer.verdicts == [("1", "Release"), ("2", "Release")]
    assert stage.began == ["slow"]
    stage.consumer.hold_settles = asyncio.Event()
    stage.let("slow")
    await stage.clock.rest()
    assert stage.began == ["slow"]  # its verdict is not settled yet
    stage.consumer.hold_settles.set()
    await stage.clock.rest()
    assert stage.began == ["slow", "suspect"]
    fetches = len(stage.consumer.limits)
    await stage.clock.rest()
    assert len(stage.consumer.limits) == fetches


@on_stage()
async def test_the_suspect_is_settled_before_the_next_fetch_which_is_careful(
    stage: Stage,
) -> None:
    await stage.worker(slots=8)
    await stage.give(delivery("1"), delivery("suspect", crashes=2))
    assert stage.began == ["suspect"]
    assert stage.consumer.verdicts == [("1", "Release"), ("suspect", "Done")]
    assert stage.consumer.limits == [8, 1]  # a second suspect would come alone
    await stage.give(delivery("other", crashes=3))
    assert stage.began == ["suspect", "other"]
    assert stage.consumer.limits == [8, 1, 1]
    await stage.give(delivery("1"))
    assert stage.consumer.limits == [8, 1, 1, 7]  # while the one that came is on its way


@on_stage()
async def test_ten_crashes_are_dead_without_a_run_and_neighbours_are_handled(
    stage: Stage,
) -> None:
    await stage.worker()
    await stage.give(delivery("1"), delivery("poison", crashes=10), delivery("2"))
    assert stage.began == ["1", "2"]
    outcome = stage.consumer.outcome("poison")
    assert isinstance(outcome, Dead)
    assert outcome.reason == "poison"
    assert outcome.notes["callcast-handler"] == "shop.mail (mail.py:7)"


@on_stage(ORDERED)
async def test_a_suspect_waits_behind_its_own_key(stage: Stage) -> None:
    stage.held = {"1"}
    await stage.worker()
    await stage.give(
        delivery("1", key="k"), delivery("2", key="k", crashes=2), delivery("3", key="k")
    )
    assert stage.began == ["1"]
    assert stage.consumer.verdicts == [("3", "Release")]
    stage.let("1")
    await stage.clock.rest()
    assert stage.began == ["1", "2"]
    assert stage.consumer.verdicts[1:] == [("1", "Done"), ("2", "Done")]


@on_stage(ORDERED)
async def test_a_suspect_whose_key_goes_back_goes_back_with_it(stage: Stage) -> None:
    stage.held = {"1"}
    await stage.worker()
    await stage.give(delivery("1", key="k"), delivery("2", key="k", crashes=2))
    stage.let("1", Later(5.0))
    await stage.clock.rest()
    assert stage.consumer.verdicts == [("2", "Release"), ("1", "Later")]
    await stage.give(delivery("9", key="other"))
    assert stage.began == ["1", "9"]


@on_stage()
async def test_a_suspect_that_waits_is_given_back_at_the_end(stage: Stage) -> None:
    stage.held = {"slow"}
    worker = await stage.worker()
    await stage.give(delivery("slow"))
    await stage.give(delivery("suspect", crashes=2))
    draining = asyncio.ensure_future(worker.drain(stage.clock.now() + 5))
    await stage.clock.rest()
    assert stage.consumer.verdicts == [("suspect", "Release")]
    stage.let("slow")
    await draining
    assert isinstance(stage.consumer.outcome("suspect"), Release)
    assert stage.began == ["slow"]


@on_stage()
async def test_a_suspect_given_back_when_the_kill_switch_opens_is_settled_once(
    stage: Stage,
) -> None:
    stage.held = {"1", "2"}
    await stage.worker()
    await stage.give(delivery("1"), delivery("2"))
    await stage.give(delivery("suspect", crashes=2))
    for name in "12":
        stage.let(name, Release(1.0, f"{AWAY}Unavailable: no database"))
        await stage.clock.rest()
    words = stage.consumer.verdicts
    assert sorted(words) == [("1", "Release"), ("2", "Release"), ("suspect", "Release")]
