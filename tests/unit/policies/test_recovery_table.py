"""What becomes of a message whose handler failed: the table of `Recovery`."""

from __future__ import annotations

import pytest

from callcast.core.errors import (
    Busy,
    CircuitOpen,
    Misuse,
    NotSent,
    Refused,
    Remote,
    Unavailable,
    Undecodable,
)
from callcast.core.outcome import Dead, Later, Outcome, Release
from callcast.policies.recovery import Recovery, single, spoken


class Oops(Exception):
    """An error of the user's."""


class WorseOops(Oops):
    """And one below it."""


class Away(Unavailable):
    """An adapter's own."""


def low() -> float:
    return 0.0


def high() -> float:
    return 0.999_999


def test_the_default_is_twenty_attempts() -> None:
    recovery = Recovery()
    assert recovery.rounds_max == 5
    assert recovery.attempts_max == 20


OOPS = Oops("x")
REFUSED = Refused("no")
WORSE = WorseOops("x")


@pytest.mark.parametrize(
    ("error", "round", "outcome"),
    [
        (OOPS, 0, Later(10.0, "Oops: x")),
        (OOPS, 1, Later(30.0, "Oops: x")),
        (OOPS, 2, Later(120.0, "Oops: x")),
        (OOPS, 3, Later(600.0, "Oops: x")),
        (OOPS, 4, Dead("Oops: x", cause=OOPS, exhausted=True)),
        (OOPS, 99, Dead("Oops: x", cause=OOPS, exhausted=True)),
        (REFUSED, 0, Dead("Refused: no", cause=REFUSED)),
        (NotSent("x"), 0, Later(10.0, "NotSent: x")),
        (Remote("x"), 0, Later(10.0, "Remote: x")),
        (TimeoutError("x"), 0, Later(10.0, "TimeoutError: x")),
        (CircuitOpen("x", retry_after=1.0), 0, Later(10.0, "CircuitOpen: x")),
        (Busy("x"), 0, Release(0.1, "busy: Busy: x")),
        (Busy("x"), 99, Release(0.1, "busy: Busy: x")),
        (Unavailable("x"), 0, Release(1.0, "unavailable: Unavailable: x")),
        (Away("x"), 99, Release(1.0, "unavailable: Away: x")),
    ],
)
def test_an_error_has_one_outcome(error: Exception, round: int, outcome: Outcome) -> None:
    assert Recovery().outcome(error, round, low) == outcome


@pytest.mark.parametrize("error", [Refused("no"), Undecodable("bad"), Misuse("wrong")])
def test_what_no_repeat_would_mend_is_dead_at_once(error: Exception) -> None:
    recovery = Recovery()
    outcome = recovery.outcome(error, 0, low)
    assert isinstance(outcome, Dead)
    assert outcome.cause is error
    assert not recovery.is_repeatable(error)


def test_jitter_lengthens_and_never_shortens() -> None:
    recovery = Recovery(delays=(10.0,), jitter=0.2)
    assert recovery.outcome(Oops(), 0, low) == Later(10.0, "Oops: ")
    outcome = recovery.outcome(Oops(), 0, high)
    assert isinstance(outcome, Later)
    assert 11.999 < outcome.delay <= 12.0


def test_waits_for_a_lock_are_short_and_for_a_database_are_seconds() -> None:
    busy = Recovery().outcome(Busy("x"), 0, high)
    away = Recovery().outcome(Unavailable("x"), 0, high)
    assert isinstance(busy, Release)
    assert isinstance(away, Release)
    assert 0.9 < busy.after <= 1.0
    assert 4.9 < away.after <= 5.0


@pytest.mark.parametrize(
    ("error", "is_repeatable"),
    [(Oops(), True), (Busy("x"), False), (Away("x"), False), (Refused("x"), False)],
)
def test_busy_away_and_permanent_are_not_repeated_at_once(
    error: Exception, *, is_repeatable: bool
) -> None:
    assert Recovery().is_repeatable(error) is is_repeatable


def test_permanent_holds_for_subclasses() -> None:
    recovery = Recovery(permanent=(Oops,))
    assert isinstance(recovery.outcome(WorseOops(), 0, low), Dead)
    assert isinstance(recovery.outcome(ValueError(), 0, low), Later)


def test_the_most_specific_class_wins() -> None:
    patient = Recovery(immediate=0, delays=(1.0, 2.0), jitter=0.0)
    recovery = Recovery(permanent=(Oops,), rules={WorseOops: patient})
    assert isinstance(recovery.outcome(Oops(), 0, low), Dead)
    assert recovery.outcome(WORSE, 1, low) == Later(2.0, "WorseOops: x")
    dead = Dead("WorseOops: x", cause=WORSE, exhausted=True)
    assert recovery.outcome(WORSE, 2, low) == dead
    assert recovery.rule(WorseOops()) is patient
    assert recovery.rule(Oops()) is recovery
    assert recovery.rule(ValueError()) is recovery
    other = Recovery(permanent=(WorseOops,), rules={Oops: patient})
    assert isinstance(other.outcome(WorseOops(), 0, low), Dead)
    assert isinstance(other.outcome(Oops(), 0, low), Later)


def test_a_rule_may_save_what_would_be_permanent() -> None:
    recovery = Recovery(rules={Refused: Recovery()})
    assert isinstance(recovery.outcome(Refused("not yet"), 0, low), Later)


def test_a_group_of_one_is_that_one() -> None:
    inner = Refused("no")
    assert single(inner) is inner
    assert single(ExceptionGroup("one", [ExceptionGroup("two", [inner])])) is inner
    pair = ExceptionGroup("two", [inner, ValueError()])
    assert single(pair) is pair


def test_the_preview_tells_all_attempts_and_the_total() -> None:
    lines = Recovery().preview().splitlines()
    rows = [line.split() for line in lines[1:21]]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 21)]
    assert [row[1] for row in rows] == [str(place) for place in range(1, 6) for _ in range(4)]
    assert lines[5] == "      5      2                    10 s               12 s"
    assert lines[21].startswith("20 attempts over 12 min 40 s to 15 min 12 s")
    assert lines[22] == "dead at once: Refused, Undecodable, Misuse"
    assert len(lines) == 23


def test_the_preview_tells_the_rules() -> None:
    recovery = Recovery(permanent=(Oops,), rules={ValueError: Recovery(delays=())})
    lines = recovery.preview().splitlines()
    assert lines[-2] == "dead at once: Refused, Undecodable, Misuse, Oops"
    assert lines[-1] == "ValueError: 4 attempts, delays ()"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.25, "0.25 s"), (59.0, "59 s"), (60.0, "1 min"), (86_461.0, "24 h 1 min 1 s")],
)
def test_seconds_are_spoken(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


@pytest.mark.parametrize(
    "wrong",
    [
        {"immediate": -1},
        {"immediate": 101},
        {"delays": (0.0,)},
        {"delays": (10.0, 86_401.0)},
        {"delays": (float("nan"),)},
        {"jitter": -0.1},
        {"jitter": 1.5},
    ],
)
def test_a_recovery_out_of_range_is_misuse(wrong: dict[str, object]) -> None:
    with pytest.raises(Misuse, match=r"Recovery\("):
        Recovery(**wrong)  # type: ignore[arg-type]


def test_a_recovery_explains_itself_and_can_be_a_key() -> None:
    assert "delays=(10.0, 30.0, 120.0, 600.0)" in repr(Recovery())
    assert {Recovery(): 1}[Recovery()] == 1


def test_the_longest_wait_is_that_of_the_longest_rule() -> None:
    assert Recovery().longest == pytest.approx(760.0 * 1.2)
    assert Recovery(delays=()).longest == 0.0
    slow = Recovery(delays=(600.0, 900.0), jitter=0.0)
    assert Recovery(rules={OSError: slow}).longest == 1_500.0
