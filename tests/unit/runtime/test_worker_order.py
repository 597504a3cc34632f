"""The worker on an stage source."""

from __future__ import annotations

import asyncio

import pytest
from worker_parts import ORDERED, Stage, delivery, on_stage

from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.ports.broker import Unsettled


@on_stage(ORDERED)
async def test_one_key_runs_one_at_a_time_in_order_and_others_beside_it(stage: Stage) -> None:
    stage.held = {"a1", "a2", "b1"}
    await stage.worker()
    await stage.give(
        delivery("a1", key="a"), delivery("a2", key="a"), delivery("b1", key="b"), delivery("free")
    )
    assert stage.began == ["a1", "b1", "free"]
    stage.let("a1")
    await stage.clock.rest()
    assert stage.began == ["a1", "b1", "free", "a2"]


@on_stage(ORDERED)
async def test_handlers_that_do_not_suspend_keep_the_order_too(stage: Stage) -> None:
    await stage.worker()
    await stage.give(*(delivery(str(number), key="k") for number in range(10)))
    assert stage.began == [str(number) for number in range(10)]
    assert stage.consumer.verdicts == [(str(number), "Done") for number in range(10)]


@pytest.mark.parametrize("outcome", [Later(5.0), Release(1.0), Dead("no", park=True)])
@on_stage(ORDERED)
async def test_those_behind_a_head_that_goes_back_are_released_in_the_same_settle(
    stage: Stage, outcome: Outcome
) -> None:
    stage.answers["1"] = outcome
    await stage.worker()
    await stage.give(*(delivery(name, key="k") for name in "123"), delivery("x", key="other"))
    (batch,) = stage.consumer.settled
    words = [(name, type(each).__name__) for name, each in batch]
    assert words[:3] == [("2", "Release"), ("3", "Release"), ("1", type(outcome).__name__)]
    assert words[3] == ("x", "Done")
    assert stage.began == ["1", "x"]


@on_stage(ORDERED)
async def test_after_a_dead_head_the_key_goes_on(stage: Stage) -> None:
    stage.answers["1"] = Dead("no")
    await stage.worker()
    await stage.give(delivery("1", key="k"), delivery("2", key="k"))
    assert stage.began == ["1", "2"]
    assert stage.consumer.verdicts == [("1", "Dead"), ("2", "Done")]


@on_stage(ORDERED)
async def test_what_was_handed_out_before_the_settle_goes_back(stage: Stage) -> None:
    stage.answers["1"] = Later(5.0)
    await stage.worker()
    stage.consumer.hold_settles = asyncio.Event()
    await stage.give(delivery("1", key="k"))
    await stage.give(delivery("2", key="k"), delivery("y", key="other"))
    stage.consumer.hold_settles.set()
    await stage.clock.rest()
    assert stage.began == ["1", "y"]
    assert stage.consumer.verdicts == [("1", "Later"), ("y", "Done"), ("2", "Release")]
    stage.answers.clear()
    await stage.give(delivery("1", key="k"), delivery("2", key="k"))
    assert stage.began == ["1", "y", "1", "2"]


@on_stage(ORDERED)
async def test_so_does_what_a_fetch_under_way_at_the_settle_brings(stage: Stage) -> None:
    stage.answers["1"] = Later(5.0)
    await stage.worker()
    await stage.give(delivery("1", key="k"))  # settled; the next fetch began before that
    await stage.give(delivery("2", key="k"))
    assert stage.began == ["1"]
    assert stage.consumer.verdicts == [("1", "Later"), ("2", "Release")]
    stage.answers.clear()
    await stage.give(delivery("1", key="k"), delivery("2", key="k"))
    assert stage.began == ["1", "1", "2"]


@on_stage(ORDERED)
async def test_a_head_that_the_broker_did_not_take_back_keeps_its_key_shut(stage: Stage) -> None:
    stage.answers["1"] = Later(5.0)
    await stage.worker()
    head = delivery("1", key="k")
    stage.consumer.troubles = [Unsettled(failed=[head])]
    await stage.give(head, delivery("2", key="k"))
    await stage.give(delivery("2", key="k"))  # taken back already, and handed out to us again
    assert stage.began == ["1"]
    await stage.clock.advance(1.0)
    # Its head is settled now: that the second is here again shows that it may run.
    assert stage.consumer.verdicts[0] == ("1", "Later")
    assert stage.began == ["1", "2"]


@on_stage(ORDERED)
async def test_the_same_message_may_come_again_at_once(stage: Stage) -> None:
    stage.answers["1"] = Release(0.0)
    await stage.worker()
    await stage.give(delivery("1", key="k"))
    stage.answers.clear()
    await stage.give(delivery("1", key="k"))
    assert stage.began == ["1", "1"]
    assert stage.consumer.outcome("1") == Release(0.0)
    assert stage.consumer.settled[-1] == [("1", DONE)]


@on_stage(ORDERED)
async def test_once_that_fetch_has_returned_the_key_may_go_on_without_its_head(
    stage: Stage,
) -> None:
    stage.answers["1"] = Later(5.0)
    await stage.worker()
    await stage.give(delivery("1", key="k"))
    await stage.give()  # the fetch that was under way brings nothing
    await stage.clock.advance(1.0)
    await stage.give(delivery("2", key="k"))  # the head was handled by somebody else meanwhile
    assert stage.began == ["1", "2"]
