"""What an answer waits for: chains, rings, shared dependencies, and the check by simulation."""

from __future__ import annotations

import random

import pytest
from advise_parts import edge, line_of, of, says, seen, system_of
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from callcast.advise import paths
from callcast.advise.budgets import budgets
from callcast.advise.check import check
from callcast.advise.model import System, Terms, Verb
from callcast.advise.whatif import changed

FIVE = dict.fromkeys("abcde", 0.99)


def whole(system: System) -> float:
    [entry] = paths.entries(system)
    return paths.availability(system, entry)


def test_a_chain_is_the_product_of_all() -> None:
    assert whole(system_of(*line_of(*"abcde"), available=FIVE)) == pytest.approx(0.95099, abs=1e-5)


def test_with_the_first_edge_a_message_the_rest_does_not_matter() -> None:
    system = system_of(*line_of(*"abcde"), available=FIVE, broker=0.9999)
    assert whole(changed(system, edge("a->b"), Verb.CAST)) == pytest.approx(0.98990, abs=1e-5)
    with_outbox = changed(system, edge("a->b"), Verb.CAST, has_outbox=True)
    assert whole(with_outbox) == pytest.approx(0.99)


def test_a_request_over_a_queue_needs_the_broker_too() -> None:
    system = system_of(says("a->b", Verb.REQUEST), available={"b": 0.9}, broker=0.5)
    assert whole(system) == pytest.approx(0.45)


def test_what_two_ways_lead_to_counts_once() -> None:
    system = system_of(
        *(says(text) for text in ("a->b", "a->c", "b->d", "c->d")), available={"d": 0.9}
    )
    assert whole(system) == pytest.approx(0.9)


def test_what_is_used_now_and_then_or_has_a_fallback_counts_less() -> None:
    used = system_of(says("a->b"), available={"b": 0.95}, shares={"a->b": 0.2})
    assert whole(used) == pytest.approx(0.99)
    spare = system_of(says("a->b", terms=Terms(has_fallback=True)), available={"b": 0.5})
    assert whole(spare) == 1.0


def test_what_nobody_said_is_what_its_callers_saw() -> None:
    system = system_of(
        says("a->b", measured=seen(100, 10)), says("c->b", measured=seen(100)), says("a->q")
    )
    assert paths.own_availability(system, "b") == pytest.approx(0.95)
    assert paths.own_availability(system, "q") is None
    messages = system_of(says("a->b", Verb.CAST, measured=seen(100, 10)))
    assert paths.own_availability(messages, "b") is None


def test_rings_are_found_once_each_and_end_a_chain() -> None:
    ring = [says(text) for text in ("a->b", "b->c", "c->b", "c->a")]
    system = system_of(*ring, says("d->c", Verb.CAST))
    assert paths.cycles(system) == [("a", "b", "c"), ("b", "c")]
    begin = system.handlers["a", "a.ask"]
    assert {str(chain) for chain in paths.chains(system, begin)} == {
        "a -> b -> c -> b",
        "a -> b -> c -> a",
    }
    assert paths.availability(system, begin) == 1.0


def test_an_entry_is_what_is_said_to_be_one_else_what_nobody_calls() -> None:
    system = system_of(says("a->b"), says("b->c"))
    assert [entry.service for entry in paths.entries(system)] == ["a"]
    said = replace(system.handlers["b", "b.ask"], is_entry=True)
    system = replace(system, handlers={**system.handlers, ("b", "b.ask"): said})
    assert [entry.service for entry in paths.entries(system)] == ["b"]


def test_attempts_multiply_down_a_chain() -> None:
    three = Terms(attempts=3)
    system = system_of(says("a->b", terms=three), says("b->c"), says("c->d", terms=three))
    [entry] = paths.entries(system)
    [chain] = paths.chains(system, entry)
    assert paths.attempts_of(system, chain) == 9
    assert paths.layers_with_retries(system, chain) == [edge("a->b"), edge("c->d")]
    assert [about.edge for about in paths.interactions_of(system, chain)] == list(chain.edges)


def test_the_longest_time_of_a_handler_is_that_of_its_calls_by_their_limits() -> None:
    system = system_of(
        says("a->b", terms=Terms(attempt_timeout=0.2, attempts=3, backoff_max=0.1)),
        says("a->c", terms=Terms(attempt_timeout=1.0, attempts=5, deadline=2.0)),
        says("a->d"),
        says("d->e", terms=Terms(deadline=0.5)),
        says("e->d"),
    )
    assert paths.worst_time(system, ("a", "a.ask")) == pytest.approx(0.7 + 2.0 + 0.5)
    assert paths.worst_time(system, ("nobody", "x")) == 0.0


def test_budgets_grow_from_the_bottom_up_and_only_the_bottom_retries() -> None:
    system = system_of(
        says("a->b", terms=Terms(attempts=3, deadline=0.1)),
        says("b->c", measured=seen(100, took=0.1), terms=Terms(backoff_max=0.05)),
        says("b->d", measured=seen(100, took=0.01), terms=Terms(is_idempotent=False)),
        says("a->c"),
    )
    own = replace(system.handlers["b", "b.ask"], own=of(0.02))
    system = replace(system, handlers={**system.handlers, ("b", "b.ask"): own})
    [entry] = paths.entries(system)
    found = {str(each.edge).partition(":")[0]: each for each in budgets(system, entry, 0.999)}
    assert found["b->c"].attempt_timeout == pytest.approx(0.12, rel=0.02)
    assert found["b->c"].deadline == pytest.approx(0.41, rel=0.02)
    assert (found["b->c"].attempts, found["b->d"].attempts, found["a->b"].attempts) == (3, 1, 1)
    assert found["b->d"].attempt_timeout == 0.05
    assert found["a->b"].attempt_timeout >= found["b->c"].deadline + found["b->d"].deadline
    assert found["a->b"].has == (None, 0.1, 3)
    assert found["a->b"].availability == pytest.approx(1 - 0.001 / 3)


LETTERS = "abcdefg"


@st.composite
def systems(draw: st.DrawFn) -> System:
    """Without rings: each calls those behind it in the alphabet alone."""
    pairs = draw(
        st.sets(
            st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda p: p[0] < p[1]),
            min_size=1,
            max_size=8,
        )
    )
    verbs = st.sampled_from([Verb.CALL, Verb.CALL, Verb.CAST, Verb.REQUEST])
    fallback = st.sampled_from([None, None, True])
    texts = [f"{LETTERS[a]}->{LETTERS[b]}" for a, b in sorted(pairs)]
    interactions = [
        says(text, draw(verbs), terms=Terms(has_fallback=draw(fallback))) for text in texts
    ]
    chance = st.floats(0.3, 1.0)
    return system_of(
        *interactions,
        available={letter: draw(chance) for letter in LETTERS},
        shares={text: draw(st.sampled_from([1.0, 0.5])) for text in texts},
        broker=draw(chance),
    )


@settings(max_examples=15)
@given(systems(), st.integers(0, 2**32))
def test_the_formulas_agree_with_a_simulation_of_the_same_system(system: System, seed: int) -> None:
    for each in check(system, random.Random(seed).random, requests=2_000):
        assert abs(each.model - each.simulated) < 0.08
        assert each.interval.low <= each.simulated <= each.interval.high


def test_a_check_says_whether_they_agree() -> None:
    system = system_of(*line_of(*"abcde"), available=FIVE)
    [found] = check(system, random.Random(1).random)
    assert found.entry == ("a", "a.ask")
    assert found.agrees
    assert not replace(found, model=0.5).agrees


@given(systems())
def test_a_message_in_place_of_a_call_never_lowers_the_callers_availability(system: System) -> None:
    for about in list(system.interactions.values()):
        then = changed(system, about.edge, Verb.CAST, has_outbox=True)
        for entry in paths.entries(system):
            before, after = paths.availability(system, entry), paths.availability(then, entry)
            assert after >= before - 1e-9


@given(systems(), st.floats(0.0, 1.0))
def test_another_hard_dependency_never_raises_it(system: System, one: float) -> None:
    before = paths.entries(system)[0]
    more = says(f"{before.service}->z")
    mine = list(system.interactions.values())
    shares = {
        f"{s.edge.caller}->{s.edge.callee}": s.share
        for h in system.handlers.values()
        for s in h.steps
    }
    available = {h.service: h.availability or 0.0 for h in system.handlers.values()}
    then = system_of(
        *mine, more, available={**available, "z": one}, shares=shares,
        broker=system.broker_availability,
    )  # fmt: skip
    after = then.handlers[before.service, before.name]
    assert paths.availability(then, after) <= paths.availability(system, before) + 1e-9
