"""The kill switch: when it opens, what reopens it, and what burns no attempt meanwhile."""

from __future__ import annotations

import pytest

from callcast.core.errors import Refused, Undecodable
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.policies.kill_switch import KillSwitch, Verdict, verdict_on
from callcast.policies.recovery import Recovery

OK, FAILED, AWAY, IGNORED = (
    Verdict.OK,
    Verdict.FAILED,
    Verdict.UNAVAILABLE,
    Verdict.IGNORED,
)


def after(switch: KillSwitch, verdicts: str, now: float = 0.0) -> str:
    """S ok, F failed, A away, I ignored."""
    kinds = {"S": OK, "F": FAILED, "A": AWAY, "I": IGNORED}
    for verdict in verdicts:
        switch.record(kinds[verdict], now)
    return switch.state


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ("F" * 19, "closed"),
        ("F" * 20, "open"),
        ("SF" * 9 + "S", "closed"),
        ("SF" * 10, "open"),
        ("S" * 11 + "F" * 9, "closed"),
        ("S" * 11 + "F" * 11, "open"),
        ("I" * 500, "closed"),
        ("F" * 19 + "I", "closed"),
        ("A", "open"),
        ("S" * 500 + "A", "open"),
    ],
)
def test_it_opens_when_most_handling_fails_or_a_database_is_away(verdicts: str, state: str) -> None:
    assert after(KillSwitch(), verdicts) == state


def test_failures_older_than_a_minute_are_forgotten() -> None:
    switch = KillSwitch()
    assert after(switch, "F" * 19, now=0.0) == "closed"
    assert after(switch, "F" * 19, now=60.0) == "closed"
    assert after(switch, "F", now=61.0) == "open"


def test_open_it_admits_nothing_until_its_wait_then_one() -> None:
    switch = KillSwitch()
    assert switch.admits(0.0) is None
    assert switch.retry_in(0.0) == 0.0
    after(switch, "A", now=100.0)
    assert switch.admits(100.0) == 0
    assert switch.retry_in(110.0) == 20.0
    assert switch.admits(129.9) == 0
    assert switch.admits(130.0) == 1
    assert switch.state == "trial"
    assert switch.admits(131.0) == 1  # nothing came of it yet
    assert switch.retry_in(131.0) == 0.0


@pytest.mark.parametrize(
    ("verdict", "state"), [("S", "closed"), ("F", "open"), ("A", "open"), ("I", "trial")]
)
def test_the_trial_decides(verdict: str, state: str) -> None:
    switch = KillSwitch()
    after(switch, "A", now=0.0)
    switch.admits(30.0)
    assert after(switch, verdict, now=31.0) == state
    assert switch.retry_in(31.0) == (30.0 if state == "open" else 0.0)


def test_verdicts_that_come_late_change_nothing() -> None:
    switch = KillSwitch()
    after(switch, "A", now=0.0)
    assert after(switch, "SSSFFFA", now=29.0) == "open"
    assert switch.admits(30.0) == 1


def test_closed_again_it_has_forgotten_what_opened_it() -> None:
    switch = KillSwitch()
    after(switch, "F" * 20)
    switch.admits(30.0)
    after(switch, "S", now=30.0)
    assert after(switch, "F" * 19, now=30.0) == "closed"


def test_its_limits_can_be_set() -> None:
    switch = KillSwitch(rate=0.1, minimum=5, window=2, wait=1.0)
    assert after(switch, "SSSSF") == "open"
    assert switch.admits(1.0) == 1


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (DONE, OK),
        (Later(10.0), FAILED),
        (Dead("Oops: x", cause=ValueError()), FAILED),
        (Dead("Refused: no", cause=Refused("no")), FAILED),
        (Dead("Undecodable: x", cause=Undecodable("x")), IGNORED),
        (Dead("expired"), IGNORED),
        (Dead("poison"), IGNORED),
        (Release(), IGNORED),
        (Release(0.3, "busy: Busy: locked"), IGNORED),
        (Release(3.0, "unavailable: Unavailable: gone"), AWAY),
    ],
)
def test_an_outcome_says_how_handling_goes(outcome: Outcome, verdict: Verdict) -> None:
    assert verdict_on(outcome) is verdict


def test_what_recovery_releases_for_a_database_opens_the_switch() -> None:
    from callcast.core.errors import Busy, Unavailable

    recovery = Recovery()
    assert verdict_on(recovery.outcome(Unavailable("x"), 0, lambda: 0.0)) is AWAY
    assert verdict_on(recovery.outcome(Busy("x"), 0, lambda: 0.0)) is IGNORED


REFUSED = Dead("Refused: no", cause=Refused("no"))
USED_UP = Dead("Oops: x", cause=ValueError("x"), exhausted=True)


@pytest.mark.parametrize("now", [1.0, 30.0])  # open; the trial
@pytest.mark.parametrize(
    ("outcome", "becomes"),
    [
        (Later(10.0, "Oops: x"), Release(60.0, "Oops: x")),
        (USED_UP, Release(60.0, "Oops: x")),
        (REFUSED, REFUSED),
        (Dead("expired"), Dead("expired")),
        (Dead("poison"), Dead("poison")),
        (Release(0.3, "busy: x"), Release(0.3, "busy: x")),
        (DONE, DONE),
    ],
)
def test_unless_it_is_closed_what_may_pass_is_not_counted_and_what_is_for_good_stays(
    now: float, outcome: Outcome, becomes: Outcome
) -> None:
    switch = KillSwitch()
    after(switch, "A", now=0.0)
    switch.admits(now)
    assert switch.judge(outcome, now) == becomes


@pytest.mark.parametrize("outcome", [Later(10.0, "Oops: x"), USED_UP, REFUSED])
def test_while_it_is_closed_every_failure_counts_the_one_that_opens_it_too(
    outcome: Outcome,
) -> None:
    switch = KillSwitch()
    assert [switch.judge(outcome, 0.0) for _ in range(20)] == [outcome] * 20
    assert switch.state == "open"
