"""The worker: how much it fetches, how it settles, what it says."""

from __future__ import annotations

import asyncio

import pytest
from worker_parts import EVENT, PLAIN, Stage, delivery, on_stage

from callcast.core.errors import Misuse
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.core.work import Kind
from callcast.ports.broker import Delivery, Lag, Unsettled
from callcast.ports.observer import Lagged, LeaseLost, Settled
from callcast.runtime.pace import QUICK
from callcast.runtime.shift import UNSETTLED_FACTOR


def many(count: int, *, start: int = 0) -> list[Delivery]:
    return [delivery(str(number)) for number in range(start, start + count)]


@on_stage()
async def test_a_delivery_becomes_work_runs_and_is_settled_once(stage: Stage) -> None:
    worker = await stage.worker()
    await stage.give(delivery("1", round=2, crashes=1))
    (work,) = stage.works
    assert work.kind is Kind.CONSUME
    assert (work.id, work.name, work.contract, work.peer) == ("1", "orders", EVENT, "mail")
    assert (work.value, work.round, work.crashes) == (b"1", 2, 1)
    assert work.message is not None
    assert stage.consumer.settled == [[("1", DONE)]]
    assert worker.is_idle


@on_stage()
async def test_it_asks_for_no_more_than_it_has_free_slots(stage: Stage) -> None:
    stage.held = {"0", "1", "2"}
    await stage.worker(slots=4)
    await stage.give(*many(3))
    assert stage.consumer.limits == [4, 1]
    stage.held.add("3")
    await stage.give(delivery("3"))
    assert stage.consumer.limits == [4, 1]  # all slots are taken
    stage.let("1")
    stage.let("3")
    await stage.clock.rest()
    assert stage.consumer.limits == [4, 1, 2]


@on_stage()
async def test_with_all_slots_taken_nothing_is_fetched(stage: Stage) -> None:
    stage.held = {"0", "1"}
    await stage.worker(slots=2)
    await stage.give(*many(2))
    assert stage.consumer.limits == [2]
    stage.let("0")
    await stage.clock.rest()
    assert stage.consumer.limits == [2, 1]


@on_stage()
async def test_one_slow_handler_does_not_stop_the_fast_ones(stage: Stage) -> None:
    stage.held = {"slow"}
    await stage.worker(slots=2)
    await stage.give(delivery("slow"), *many(1))
    for number in range(1, 20):
        await stage.give(delivery(str(number)))
    assert len(stage.consumer.verdicts) == 20
    assert "slow" not in dict(stage.consumer.verdicts)


@on_stage()
async def test_a_slot_is_free_at_its_verdict_and_unsettled_ones_stop_fetching(
    stage: Stage,
) -> None:
    worker = await stage.worker(slots=2)
    stage.consumer.hold_settles = asyncio.Event()
    for number in range(UNSETTLED_FACTOR):
        first, second = names = (str(2 * number), str(2 * number + 1))
        stage.held = set(names)
        await stage.give(*map(delivery, names))
        await stage.clock.advance(2 * QUICK)
        stage.let(first)
        stage.let(second)
        await stage.clock.rest()
    assert stage.consumer.limits == [2] * UNSETTLED_FACTOR
    assert not worker.is_idle
    stage.consumer.hold_settles.set()
    await stage.clock.rest()
    assert stage.consumer.limits == [2] * (UNSETTLED_FACTOR + 1)
    assert len(stage.consumer.verdicts) == 2 * UNSETTLED_FACTOR


@on_stage()
async def test_while_handlers_are_quick_more_is_fetched_at_once_than_runs_at_once(
    stage: Stage,
) -> None:
    await stage.worker(slots=2)
    await stage.give(*many(2))
    await stage.give(*many(4, start=2))
    assert stage.consumer.limits == [2, 4, 8]
    names = {str(number) for number in range(6, 14)}
    stage.held = set(names)
    await stage.give(*many(8, start=6))
    assert len(stage.works) == 6 + 2
    await stage.clock.advance(2 * QUICK)
    for name in sorted(names, key=int):
        stage.let(name)
        await stage.clock.rest()
    assert len(stage.works) == 6 + 8
    assert stage.consumer.limits[3:] == [6]  # not before what is beyond the slots was used up


@on_stage()
async def test_verdicts_gather_while_a_settle_is_on_its_way(stage: Stage) -> None:
    await stage.worker(slots=8)
    stage.consumer.hold_settles = asyncio.Event()
    await stage.give(delivery("1"))
    await stage.give(delivery("2"))
    await stage.give(delivery("3"), delivery("4"))
    stage.consumer.hold_settles.set()
    await stage.clock.rest()
    assert [[name for name, _ in batch] for batch in stage.consumer.settled] == [
        ["1"],
        ["2", "3", "4"],
    ]


@on_stage()
async def test_a_lost_verdict_is_told_and_forgotten(stage: Stage) -> None:
    worker = await stage.worker()
    one, two = delivery("1"), delivery("2")
    stage.consumer.troubles = [Unsettled(lost=[one])]
    await stage.give(one, two)
    assert stage.observer.of(LeaseLost) == [LeaseLost(str(PLAIN), 1, ("1",), ("1",), ("",))]
    assert stage.consumer.settled == []
    assert worker.is_idle
    assert worker.state == "running"


@on_stage()
async def test_a_failed_verdict_is_settled_again_after_a_pause(stage: Stage) -> None:
    worker = await stage.worker()
    one, two = delivery("1"), delivery("2")
    stage.consumer.troubles = [Unsettled(failed=[two], why="the dead queue said no")]
    await stage.give(one, two)
    assert worker.state == "failing"
    assert isinstance(worker.trouble, Unsettled)
    assert not worker.is_idle
    assert stage.consumer.settled == []
    await stage.clock.advance(0.2)
    assert stage.consumer.settled == [[("2", DONE)]]
    assert worker.state == "running"
    assert worker.trouble is None


@on_stage()
async def test_what_was_refused_comes_before_what_came_later(stage: Stage) -> None:
    await stage.worker()
    stage.consumer.troubles = [OSError("no"), OSError("still no")]
    await stage.give(delivery("1"))
    await stage.give(delivery("2"))
    await stage.clock.advance(1.0)
    assert stage.consumer.verdicts == [("1", "Done"), ("2", "Done")]


@on_stage()
async def test_a_parked_source_makes_the_dead_hold_their_key(stage: Stage) -> None:
    stage.answers["1"] = Dead("no")
    await stage.worker(park=True)
    await stage.give(delivery("1"))
    assert stage.consumer.outcome("1") == Dead("no", park=True)


@on_stage()
async def test_each_verdict_is_told(stage: Stage) -> None:
    stage.answers = {
        "later": Later(5.0, "ValueError: x", {"callcast-attempts": "4"}),
        "dead": Dead("no", {"callcast-attempts": "8", "callcast-error-type": "ValueError"}),
        "back": Release(1.0, "busy: x"),
    }
    await stage.worker()
    await stage.give(*(delivery(name, round=1) for name in ("done", "later", "dead", "back")))
    wall = stage.clock.wall()
    assert stage.observer.of(Settled) == [
        Settled(str(PLAIN), "done", 2, wall),
        Settled(str(PLAIN), "later", 4, wall, "ValueError: x"),
        Settled(str(PLAIN), "dead", 8, wall, "ValueError"),
        Settled(str(PLAIN), "release", 2, wall, "busy: x"),
    ]


@on_stage()
async def test_how_far_it_is_behind_is_told_now_and_then(stage: Stage) -> None:
    stage.feed.lag_now = Lag(ready=3, leased=2, delayed=1, dead=4, oldest=9.5)
    await stage.worker()
    await stage.clock.advance(31.0)
    told = Lagged(str(PLAIN), 3, 2, 1, 4, 9.5)
    assert stage.observer.of(Lagged)[:2] == [told, told]


@on_stage()
async def test_a_fetch_that_fails_is_repeated_after_a_pause(stage: Stage) -> None:
    worker = await stage.worker()
    stage.consumer.batches.put_nowait(OSError("reset"))
    await stage.clock.rest()
    assert worker.state == "failing"
    assert not worker.is_healthy
    assert len(stage.consumer.limits) == 1
    await stage.clock.advance(0.2)
    await stage.give(delivery("1"))
    assert stage.consumer.verdicts == [("1", "Done")]
    assert worker.state == "running"
    assert worker.is_healthy


@on_stage()
async def test_it_starts_once(stage: Stage) -> None:
    worker = await stage.worker()
    with pytest.raises(Misuse):
        await worker.start()


@on_stage()
async def test_what_the_broker_says_at_the_start_reaches_the_caller(stage: Stage) -> None:
    stage.feed.refusals = [OSError("no broker")]
    with pytest.raises(OSError, match="no broker"):
        await stage.worker()


@pytest.mark.parametrize("changes", [{"slots": 0}, {"lease": 0.0}, {"timeout": -1.0}])
def test_a_subscription_out_of_range_is_misuse(changes: dict[str, object]) -> None:
    with pytest.raises(Misuse, match=r"mail\.py:7"):
        Stage().subscription(**changes)


@on_stage()
async def test_leases_are_renewed_by_the_clock_and_end_after_the_timeout(stage: Stage) -> None:
    """On a clock that is moved by hand, from the loop."""
    stage.held = {"1"}
    await stage.worker(lease=60.0, timeout=100.0)
    await stage.give(delivery("1"))
    await stage.clock.advance(119.0)
    assert 5 <= len(stage.consumer.renewed) <= 6
    renewed = len(stage.consumer.renewed)
    await stage.clock.advance(100.0)
    assert len(stage.consumer.renewed) == renewed
    stage.let("1")


async def test_two_workers_in_one_process_share_no_failure_state() -> None:
    failing, well = Stage(), Stage()
    workers = [await failing.worker(), await well.worker()]
    failing.answers = {str(number): Later(1.0) for number in range(40)}
    await failing.give(*many(40))
    await well.give(*many(40))
    assert [each.state for each in workers] == ["paused", "running"]
    for stage in (failing, well):
        await stage.close()


@on_stage()
async def test_what_is_settled_is_not_renewed_and_what_is_refused_is(stage: Stage) -> None:
    await stage.worker(lease=60.0)
    stage.consumer.troubles = [OSError("no") for _ in range(100)]
    await stage.give(delivery("1"))
    await stage.clock.advance(25.0)
    assert stage.consumer.renewed == [["1"]]
    stage.consumer.troubles.clear()
    await stage.clock.advance(50.0)
    assert stage.consumer.verdicts == [("1", "Done")]
    assert len(stage.consumer.renewed) <= 2


@on_stage()
async def test_a_consumer_that_no_longer_waits_does_not_spin_the_loop(stage: Stage) -> None:
    async def at_once(limit: int, wait: float) -> list[Delivery]:
        stage.consumer.limits.append(limit)
        return []

    worker = await stage.worker()
    stage.consumer.fetch = at_once  # type: ignore[method-assign]
    await stage.give(delivery("1"))
    fetches = len(stage.consumer.limits)
    await stage.clock.advance(1.0)
    assert 9 <= len(stage.consumer.limits) - fetches <= 10
    assert worker.state == "running"


@on_stage()
async def test_what_went_well_is_not_told_to_those_who_do_not_want_it(stage: Stage) -> None:
    stage.observer.wants_success = False
    stage.answers["2"] = Dead("no use")
    await stage.worker(slots=2)
    await stage.give(delivery("1"), delivery("2"))
    assert [fact.outcome for fact in stage.observer.of(Settled)] == ["dead"]
