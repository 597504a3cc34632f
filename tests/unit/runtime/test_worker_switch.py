"""The worker and its kill switch."""

from __future__ import annotations

import pytest
from worker_parts import ORDERED, PLAIN, Stage, delivery, on_stage

from callcast.core.errors import Unavailable
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.policies.recovery import AWAY
from callcast.ports.broker import Delivery
from callcast.ports.observer import KillSwitch
from callcast.runtime.worker import Worker

WAIT = 30.0


def many(count: int) -> list[Delivery]:
    return [delivery(str(number)) for number in range(count)]


async def opened(stage: Stage) -> Worker:
    """A worker whose handler has failed twenty times."""
    worker = await stage.worker()
    stage.answers = {str(number): Later(10.0, "ValueError: x") for number in range(20)}
    await stage.give(*many(20))
    assert worker.state == "paused"
    return worker


@on_stage()
async def test_when_most_handling_fails_it_stops_fetching(stage: Stage) -> None:
    worker = await opened(stage)
    stage.consumer.put(delivery("a"))
    await stage.clock.advance(WAIT - 1)
    # A fetch was under way when it opened: what that brings goes back untouched.
    assert stage.consumer.outcome("a") == Release(reason="not now")
    fetches = len(stage.consumer.limits)
    stage.consumer.put(delivery("b"))
    await stage.clock.rest()
    assert len(stage.consumer.limits) == fetches
    assert "b" not in stage.began
    assert worker.is_healthy  # degraded, not ill
    assert stage.observer.of(KillSwitch) == [KillSwitch(str(PLAIN), "open", "ValueError: x")]


@on_stage()
async def test_one_trial_message_reopens(stage: Stage) -> None:
    worker = await opened(stage)
    await stage.give(delivery("a"))
    await stage.clock.advance(WAIT)
    assert stage.consumer.limits[-1] == 1
    await stage.give(delivery("trial"))
    assert stage.began[-1] == "trial"
    assert worker.state == "running"
    assert stage.consumer.limits[-1] == 64
    states = [fact.state for fact in stage.observer.facts if isinstance(fact, KillSwitch)]
    assert states == ["open", "trial", "closed"]


@on_stage()
async def test_a_trial_that_may_pass_is_not_counted_and_another_message_is_next(
    stage: Stage,
) -> None:
    await opened(stage)
    await stage.give(delivery("a"))
    await stage.clock.advance(WAIT)
    stage.answers["trial"] = Later(10.0, "ValueError: still")
    await stage.give(delivery("trial"))
    outcome = stage.consumer.outcome("trial")
    assert isinstance(outcome, Release)
    assert outcome.after > WAIT  # behind the next trial
    fetches = len(stage.consumer.limits)
    await stage.clock.advance(WAIT - 1)
    assert len(stage.consumer.limits) == fetches
    await stage.clock.advance(1)
    await stage.give(delivery("other"))
    assert stage.began[-1] == "other"
    assert stage.consumer.limits[-1] == 64


@on_stage()
async def test_a_trial_that_fails_for_good_is_dead(stage: Stage) -> None:
    worker = await opened(stage)
    await stage.give(delivery("a"))
    await stage.clock.advance(WAIT)
    stage.answers["trial"] = Dead("Refused: no", cause=ValueError("no"))
    await stage.give(delivery("trial"))
    assert isinstance(stage.consumer.outcome("trial"), Dead)
    assert worker.state == "paused"


@on_stage()
async def test_a_trial_in_its_last_round_that_may_pass_is_not_dead(stage: Stage) -> None:
    await opened(stage)
    await stage.give(delivery("a"))
    await stage.clock.advance(WAIT)
    stage.answers["trial"] = Dead("ValueError: x", cause=ValueError("x"), exhausted=True)
    await stage.give(delivery("trial", round=4))
    assert stage.consumer.outcome("trial") == Release(2 * WAIT, "ValueError: x")


@on_stage()
async def test_what_was_in_flight_when_it_opened_burns_no_attempt(stage: Stage) -> None:
    stage.held = {"later", "last", "refused", "fine"}
    worker = await stage.worker()
    stage.answers = {str(number): Later(10.0, "ValueError: x") for number in range(20)}
    held = [delivery("later"), delivery("last", round=4), delivery("refused"), delivery("fine")]
    await stage.give(*held, *many(20))
    assert worker.state == "paused"
    assert stage.consumer.outcome("19") == Later(10.0, "ValueError: x")  # the one that opened it
    dead = Dead("Refused: no", cause=ValueError("no"))
    stage.let("later", Later(10.0, "ValueError: x"))
    stage.let("last", Dead("ValueError: x", cause=ValueError("x"), exhausted=True))
    stage.let("refused", dead)
    stage.let("fine")
    await stage.clock.rest()
    # Behind the trial, so that it is another message that tells whether handling works again.
    assert stage.consumer.outcome("later") == Release(2 * WAIT, "ValueError: x")
    assert stage.consumer.outcome("last") == Release(2 * WAIT, "ValueError: x")
    assert stage.consumer.outcome("refused") == dead
    assert stage.consumer.outcome("fine") == DONE
    assert worker.state == "paused"


@on_stage(ORDERED)
async def test_a_key_in_flight_when_it_opened_is_held_by_its_head_uncounted(stage: Stage) -> None:
    stage.held = {"k1"}
    stage.answers["1"] = Release(1.0, f"{AWAY}Unavailable: no database")
    await stage.worker()
    await stage.give(delivery("k1", key="k"), delivery("k2", key="k"), delivery("1", key="x"))
    stage.let("k1", Later(10.0, "ValueError: x"))
    await stage.clock.rest()
    assert stage.consumer.outcome("k1") == Release(2 * WAIT, "ValueError: x")
    assert [name for name, _ in stage.consumer.verdicts] == ["1", "k2", "k1"]


@on_stage()
async def test_the_trial_waits_until_nothing_is_in_flight(stage: Stage) -> None:
    stage.held = {"slow"}
    worker = await stage.worker()
    stage.answers = {str(number): Later(10.0) for number in range(20)}
    await stage.give(delivery("slow"), *many(20))
    await stage.give(delivery("late"))
    assert worker.state == "paused"
    fetches = len(stage.consumer.limits)
    await stage.clock.advance(2 * WAIT)
    assert len(stage.consumer.limits) == fetches
    stage.let("slow")  # its success is not the trial's
    await stage.clock.rest()
    assert worker.state == "paused"
    assert stage.consumer.limits[fetches:] == [1]


@pytest.mark.parametrize(
    "outcome",
    [
        Dead("Undecodable: $.id"),
        Dead("expired"),
        Dead("poison"),
        Release(0.5, "busy: locked"),
    ],
)
@on_stage()
async def test_what_says_nothing_about_the_handler_does_not_open_it(
    stage: Stage, outcome: Outcome
) -> None:
    worker = await stage.worker()
    stage.answers = {str(number): outcome for number in range(40)}
    await stage.give(*many(40))
    assert worker.state == "running"


@on_stage()
async def test_a_database_that_is_away_opens_it_at_once(stage: Stage) -> None:
    worker = await stage.worker()
    stage.answers["1"] = Release(1.0, f"{AWAY}Unavailable: no database")
    stage.held = {"2"}
    await stage.give(delivery("1"), delivery("2"), delivery("3"))
    assert worker.state == "paused"
    assert stage.began == ["1"]
    assert isinstance(stage.consumer.outcome("2"), Release)  # never burns attempts
    assert isinstance(stage.consumer.outcome("3"), Release)


@on_stage(ORDERED)
async def test_at_opening_what_waits_behind_a_running_key_goes_back(stage: Stage) -> None:
    stage.held = {"k1"}
    stage.answers["1"] = Release(1.0, f"{AWAY}Unavailable: no database")
    await stage.worker()
    await stage.give(delivery("k1", key="k"), delivery("k2", key="k"), delivery("1", key="x"))
    assert stage.consumer.verdicts == [("1", "Release"), ("k2", "Release")]
    stage.let("k1")
    await stage.clock.rest()
    assert stage.consumer.verdicts[-1] == ("k1", "Done")
    assert stage.began == ["k1", "1"]


@on_stage()
async def test_a_broker_that_stays_away_opens_it_but_a_blip_does_not(stage: Stage) -> None:
    worker = await stage.worker()
    for _ in range(3):
        stage.consumer.batches.put_nowait(Unavailable("no broker"))
    await stage.clock.advance(0.1)
    assert worker.state == "failing"
    assert stage.observer.of(KillSwitch) == []
    await stage.clock.advance(1.0)
    (fact,) = stage.observer.of(KillSwitch)
    assert fact == KillSwitch(str(PLAIN), "open", "the broker is away: no broker")
    await stage.clock.advance(WAIT)
    await stage.give(delivery("1"))
    assert stage.consumer.verdicts == [("1", "Done")]
    assert worker.state == "running"


@on_stage()
async def test_a_settle_that_keeps_failing_opens_it_too(stage: Stage) -> None:
    worker = await stage.worker()
    stage.consumer.troubles = [Unavailable("no broker") for _ in range(3)]
    await stage.give(delivery("1"))
    await stage.clock.advance(5.0)
    assert [type(fact).__name__ for fact in stage.observer.of(KillSwitch)] == ["KillSwitch"]
    assert stage.consumer.verdicts == [("1", "Done")]
    assert worker.state == "paused"
