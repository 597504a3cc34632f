"""Verdicts on poison, suspects, and what escapes a chain."""

from __future__ import annotations

import asyncio

import pytest
from worker_parts import delivery

from callcast.core.outcome import Dead, Later, Release
from callcast.policies.kill_switch import Verdict, verdict_on
from callcast.runtime.verdicts import (
    ESCAPES_MAX,
    escaped,
    is_poison,
    is_suspect,
    poison,
    set_apart,
)


@pytest.mark.parametrize(
    ("crashes", "suspect", "dead"),
    [(0, False, False), (1, False, False), (2, True, False), (9, True, False), (10, False, True)],
)
def test_two_crashes_make_a_suspect_and_ten_make_poison(
    crashes: int, suspect: bool, dead: bool
) -> None:
    each = delivery("1", crashes=crashes)
    assert (is_suspect(each), is_poison(each)) == (suspect, dead)


def test_poison_is_dead_with_notes_and_no_handlers_failure() -> None:
    outcome = poison(delivery("1", crashes=10), handler="shop.pack (pack.py:3)")
    assert outcome.reason == "poison"
    assert outcome.notes["callcast-attempts"] == "10"
    assert "shop.pack (pack.py:3)" in outcome.notes["callcast-error-message"]
    assert verdict_on(outcome) is Verdict.IGNORED


def test_a_batch_without_a_suspect_is_kept_whole() -> None:
    batch = [delivery("1"), delivery("2", crashes=1), delivery("3", crashes=10)]
    assert set_apart(batch, is_ordered=False) == (None, batch, ())


def test_the_rest_makes_room_for_the_first_suspect() -> None:
    one, first, three, second = (
        delivery("1"),
        delivery("2", crashes=2),
        delivery("3"),
        delivery("4", crashes=5),
    )
    found = set_apart([one, first, three, second], is_ordered=False)
    assert found == (first, [first], [one, three, second])


def test_a_suspect_does_not_overtake_its_own_key() -> None:
    before, other, suspect, after = (
        delivery("1", key="a"),
        delivery("2", key="b"),
        delivery("3", key="a", crashes=2),
        delivery("4", key="a"),
    )
    batch = [before, other, suspect, after]
    assert set_apart(batch, is_ordered=True) == (suspect, [before, suspect], [other, after])
    assert set_apart(batch, is_ordered=False) == (suspect, [suspect], [before, other, after])


def test_an_interrupt_is_the_users_doing_and_not_counted() -> None:
    assert isinstance(escaped(KeyboardInterrupt(), 0), Release)


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), RuntimeError("no")])
def test_what_escapes_is_counted_and_ends(error: BaseException) -> None:
    outcomes = [escaped(error, each) for each in range(ESCAPES_MAX)]
    delays = [each.delay for each in outcomes if isinstance(each, Later)]
    assert delays == [10.0, 40.0, 160.0, 640.0]
    last = outcomes[-1]
    assert isinstance(last, Dead)
    assert verdict_on(last) is Verdict.FAILED
