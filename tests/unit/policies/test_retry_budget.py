"""The retry budget: a token bucket told of successes and failures."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies_kit import lock

from callcast.core.errors import Misuse
from callcast.policies.budget import Budget
from callcast.policies.options import Bulkhead, Retry


def a_budget(tokens: float = 100.0, ratio: float = 0.1) -> Budget:
    return Budget(tokens, ratio, lock=lock())


def test_the_reserve_lets_the_first_failures_be_retried() -> None:
    budget = a_budget()
    retried = 0
    for _ in range(200):
        budget.fail()
        retried += budget.allows
    assert retried == 49
    assert budget.tokens == 0.0


def test_a_storm_is_damped_to_the_ratio() -> None:
    budget = a_budget()
    for _ in range(100):
        budget.fail()
    retried = 0
    for number in range(10_000):
        if number % 10 == 0:
            budget.fail()
            retried += budget.allows
        else:
            budget.succeed()
    assert retried < 1_000


def test_tokens_stay_within_their_bounds() -> None:
    budget = a_budget(2.0, 0.5)
    budget.succeed()
    assert budget.tokens == 2.0
    budget.fail()
    assert not budget.allows
    budget.succeed()
    assert budget.allows
    for _ in range(5):
        budget.fail()
    assert budget.tokens == 0.0
    for _ in range(9):
        budget.succeed()
    assert budget.tokens == 2.0


@given(st.lists(st.booleans(), max_size=300))
def test_it_is_a_token_bucket(events: list[bool]) -> None:
    budget, tokens = a_budget(10.0, 0.1), 10.0
    for succeeded in events:
        if succeeded:
            budget.succeed()
            tokens = min(10.0, tokens + 0.1)
        else:
            budget.fail()
            tokens = max(0.0, tokens - 1.0)
        assert budget.tokens == pytest.approx(tokens)
        assert budget.allows == (budget.tokens > 5.0)


def test_failures_of_many_threads_are_all_counted() -> None:
    budget = a_budget(100_000.0)

    def work() -> None:
        for _ in range(1_000):
            budget.fail()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert budget.tokens == 92_000.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"base": -1.0},
        {"base": 6.0},
        {"cap": 86_401.0},
        {"budget": 0.0},
        {"budget_ratio": 1.1},
    ],
)
def test_a_retry_out_of_range_is_misuse(wrong: dict[str, float]) -> None:
    with pytest.raises(Misuse, match=r"Retry\("):
        Retry(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"queue": -1}])
def test_a_bulkhead_out_of_range_is_misuse(wrong: dict[str, int]) -> None:
    with pytest.raises(Misuse, match=r"Bulkhead\("):
        Bulkhead(**wrong)
