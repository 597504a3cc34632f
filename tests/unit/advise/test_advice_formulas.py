"""The formulas, with the worked examples whose numbers were computed elsewhere."""

from __future__ import annotations

from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.advise import availability as a
from callcast.advise import load
from callcast.advise.confidence import Interval, wilson

shares = st.floats(0.0, 1.0)
few = st.integers(1, 8)


def test_five_in_a_chain_at_99_are_down_for_35_hours_a_month() -> None:
    whole = a.chain([0.99] * 5)
    assert whole == pytest.approx(0.95099, abs=1e-5)
    assert a.down_seconds(whole) / 3600 == pytest.approx(35.3, abs=0.05)


def test_five_in_a_chain_at_99_9_are_down_for_216_minutes_a_month() -> None:
    whole = a.chain([0.999] * 5)
    assert whole == pytest.approx(0.99501, abs=1e-5)
    assert a.down_seconds(whole) / 60 == pytest.approx(215.6, abs=0.1)


def test_with_its_first_edge_a_message_only_the_first_and_the_broker_count() -> None:
    assert a.chain([0.99, a.of_message(0.9999, has_outbox=False)]) == pytest.approx(
        0.98990, abs=1e-5
    )
    assert a.chain([0.99, a.of_message(0.9999, has_outbox=True)]) == pytest.approx(0.99)


def test_a_dependency_of_every_fifth_request() -> None:
    assert a.soft(0.95, 0.2) == pytest.approx(0.99)


def test_the_rule_of_the_extra_nine() -> None:
    assert a.needed_of_each(0.999, 5) == pytest.approx(0.9998)


def test_attempts_add_up_below_each_other() -> None:
    one = load.attempts_expected(0.5, 4)
    assert one == 1.875
    assert one**3 == pytest.approx(6.59, abs=0.005)
    assert load.attempts_at_worst([4, 4, 4]) == 64
    assert load.attempts_expected(1.0, 4) == 4.0
    assert load.attempts_with_budget(0.2, 3) == pytest.approx(1.728)


def test_the_tail_of_many() -> None:
    assert load.slow_share(0.01, 100) == pytest.approx(0.634, abs=5e-4)
    assert load.slow_share(0.01, 5) == pytest.approx(0.049, abs=5e-4)
    assert load.quantile_of_each(0.99, 5) == pytest.approx(0.998, abs=5e-5)


def test_what_is_in_flight_and_the_bulkhead_for_it() -> None:
    flying = load.in_flight(200, 0.25)
    assert flying == 50
    assert load.bulkhead_for(flying) == 72


def test_what_waits_after_an_outage_and_for_how_long() -> None:
    assert load.backlog_after(100, 600) == 60_000
    assert load.drain(100, 600, 130) == 33 * 60 + 20
    assert load.drain(100, 600, 100) == inf
    assert load.capacity_to_drain(100, 600, 600) == 200


def test_what_a_broker_keeps_in_four_hours() -> None:
    assert load.backlog_after(100, 4 * 3600) == 1_440_000
    assert load.storage(100, 4 * 3600, 2000) == 2.88e9


def test_dead_letters_of_a_day() -> None:
    assert load.dead_rate(100, poison=0.0, failing=0.05, attempts=5) * 86_400 == pytest.approx(2.7)
    assert load.dead_in_outage(100, 3600, 600) == 300_000
    assert load.dead_in_outage(100, 600, 3600) == 0


def test_retries_mend_what_is_transient_alone() -> None:
    assert a.with_retries(0.99, 0.1, 3) == pytest.approx(0.99 * 0.999)
    assert a.split(0.99 * 0.9, 0.1) == pytest.approx(0.99)
    assert a.split(0.5, 1.0) == 1.0
    assert a.with_fallback(0.9, 0.5) == pytest.approx(0.95)
    assert a.replicas(0.9, 2) == pytest.approx(0.99)


def test_the_longest_that_a_call_may_take() -> None:
    beside = [load.Wait(0.2), load.Wait(0.1, attempts=3, backoff=0.05)]
    assert load.worst_case(0.01, [beside, [load.Wait(0.5)], []]) == pytest.approx(0.86)


def test_waiting_for_a_free_worker() -> None:
    assert load.utilisation(8, 0.1, 1) == pytest.approx(0.8)
    # With one worker Erlang's C is its utilisation.
    assert load.erlang_c(8, 0.1, 1) == pytest.approx(0.8)
    assert load.erlang_c(20, 0.1, 2) == 1.0
    assert load.waits_longer(8, 0.1, 1, than=0.0) == pytest.approx(0.8)
    assert load.waits_longer(8, 0.1, 1, than=1.0) == pytest.approx(0.8 * 2.718281828**-2)
    assert load.waits_longer(20, 0.1, 2, than=1.0) == 1.0


def test_wilson_as_in_the_books() -> None:
    found = wilson(9, 10)
    assert (found.low, found.high) == (
        pytest.approx(0.5958, abs=1e-3),
        pytest.approx(0.9821, abs=1e-3),
    )
    assert wilson(0, 0) == Interval(0.0, 1.0, 0)
    assert wilson(999, 1000).clears(0.99)
    assert wilson(900, 1000).clears(0.99)
    assert not wilson(99, 100).clears(0.99)


@given(st.lists(shares, max_size=6), shares)
def test_another_hard_dependency_never_helps(there: list[float], one: float) -> None:
    assert a.chain([*there, one]) <= a.chain(there)


@given(st.dictionaries(st.text(max_size=2), shares, max_size=5))
def test_what_is_named_twice_counts_once(named: dict[str, float]) -> None:
    assert a.chain_of({**named, **named}) == a.chain_of(named)


@given(shares, shares, few)
def test_retries_never_harm(hard: float, transient: float, attempts: int) -> None:
    assert a.with_retries(hard, transient, attempts + 1) >= a.with_retries(
        hard, transient, attempts
    )


@given(shares, shares)
def test_needed_less_often_it_harms_less(one: float, used: float) -> None:
    assert one - 1e-12 <= a.soft(one, used) <= 1.0


@given(shares, shares)
def test_a_fallback_never_harms(one: float, fallback: float) -> None:
    assert one - 1e-12 <= a.with_fallback(one, fallback) <= 1.0 + 1e-12


@given(shares, few)
def test_another_replica_never_harms(one: float, count: int) -> None:
    assert a.replicas(one, count + 1) >= a.replicas(one, count) - 1e-12


@given(st.floats(0.5, 0.9999), few)
def test_what_is_asked_of_each_is_enough_for_the_whole(target: float, count: int) -> None:
    assert a.chain([a.needed_of_each(target, count)] * count) >= target - 1e-9


@given(shares, few)
def test_attempts_are_between_one_and_all(failing: float, attempts: int) -> None:
    assert 1.0 <= load.attempts_expected(failing, attempts) <= attempts + 1e-9


@given(st.floats(0.01, 50), st.floats(0.001, 0.5), st.integers(1, 20))
def test_the_chance_to_wait_is_one(rate: float, work: float, workers: int) -> None:
    chance = load.erlang_c(rate, work, workers)
    assert 0.0 <= chance <= 1.0
    assert load.erlang_c(rate, work, workers + 1) <= chance + 1e-12
    assert load.waits_longer(rate, work, workers, than=1.0) <= chance + 1e-12


@given(st.floats(0.1, 1e3), st.floats(1, 1e4), st.floats(0.1, 1e3))
def test_with_more_capacity_it_is_through_sooner(rate: float, outage: float, spare: float) -> None:
    assert load.drain(rate, outage, rate + 2 * spare) < load.drain(rate, outage, rate + spare)


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_what_was_seen_and_narrows(good: int, bad: int) -> None:
    n = good + bad
    found, wider = wilson(good, n), wilson(10 * good, 10 * n)
    assert 0.0 <= found.low <= found.high <= 1.0
    if n:
        assert found.low - 1e-9 <= good / n <= found.high + 1e-9
        assert wider.high - wider.low <= found.high - found.low


@given(shares, st.integers(1, 100))
def test_more_answers_are_slow_more_often(one: float, count: int) -> None:
    assert load.slow_share(one, count + 1) >= load.slow_share(one, count) - 1e-12
    assert isclose(load.quantile_of_each(0.99, count) ** count, 0.99, rel_tol=1e-9)
