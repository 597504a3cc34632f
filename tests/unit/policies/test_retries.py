"""Retries of calls: when, how long after, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies_kit import Remembering, a_call, a_context, lock, overloaded

from callcast.core.errors import (
    BulkheadFull,
    CircuitOpen,
    Misuse,
    NotSent,
    Remote,
    Unanswered,
)
from callcast.core.work import Work
from callcast.policies.budget import Budget
from callcast.policies.history import attempts_of
from callcast.policies.options import Retry
from callcast.policies.retry import Judge, RetryLayer, RetryOn, is_forbidden, repeats
from callcast.ports.observer import Retried
from callcast.testing.clock import ManualClock


class Callee:
    """Raises what it is given, in order, then answers; remembers when each attempt came."""

    def __init__(self, clock: ManualClock, *errors: BaseException, takes: float = 0.0) -> None:
        self._clock = clock
        self._errors = list(errors)
        self._takes = takes
        self.attempts: list[tuple[float, int]] = []

    async def __call__(self, work: Work) -> str:
        self.attempts.append((self._clock.now(), work.attempt))
        if self._takes:
            await self._clock.sleep(self._takes)
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


class Bench:
    """A retry layer with a clock of its own."""

    def __init__(
        self,
        *,
        attempts: int = 3,
        base: float = 1.0,
        cap: float = 5.0,
        tokens: float = 100.0,
        is_idempotent: bool = True,
        on: RetryOn = None,
        dice: Callable[[], float] = lambda: 1.0,
        circuit_wait: Callable[[float], float] | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.seen = Remembering()
        self.budget = Budget(tokens, 0.1, lock=lock())
        self.judge = Judge(
            Retry(attempts, base, cap),
            self.budget,
            dice=dice,
            repeats=repeats(is_idempotent=is_idempotent, on=on),
            circuit_wait=circuit_wait,
        )
        self.layer = RetryLayer(self.judge, clock=self.clock, observer=self.seen)

    async def run(self, callee: Callee, work: Work | None = None) -> str:
        task = asyncio.ensure_future(self.layer(work or a_call(), callee))
        await self.clock.advance(1_000.0)
        assert task.done()
        return await task

    async def failure(self, callee: Callee, work: Work | None = None) -> Exception:
        with pytest.raises(Exception) as caught:
            await self.run(callee, work)
        return caught.value

    def why(self) -> list[str]:
        return [fact.outcome for fact in self.seen.facts if isinstance(fact, Retried)]


def refused() -> NotSent:
    return NotSent("no connection")


async def test_the_first_answer_is_the_answer() -> None:
    bench = Bench()
    callee = Callee(bench.clock)
    assert await bench.run(callee) == "answer"
    assert callee.attempts == [(1_000.0, 1)]
    assert bench.seen.facts == []
    assert repr(bench.layer) == "Retry(3 attempts)"


async def test_a_failure_that_passes_is_repeated_with_growing_delays() -> None:
    bench = Bench(attempts=4)
    callee = Callee(bench.clock, refused(), overloaded(), Unanswered("lost"))
    assert await bench.run(callee) == "answer"
    assert callee.attempts == [(1_000.0, 1), (1_001.0, 2), (1_003.0, 3), (1_007.0, 4)]
    assert bench.seen.facts == [
        Retried("inventory.stock", "inventory", "retried", 1, 1.0, "NotSent"),
        Retried("inventory.stock", "inventory", "retried", 2, 2.0, "Remote"),
        Retried("inventory.stock", "inventory", "retried", 3, 4.0, "Unanswered"),
    ]
    assert bench.budget.tokens == pytest.approx(97.1)


async def test_three_attempts_are_three_and_the_last_error_surfaces_with_all_of_them() -> None:
    bench = Bench()
    last = OSError("third")
    callee = Callee(bench.clock, OSError("first"), OSError("second"), last)
    error = await bench.failure(callee)
    assert error is last
    assert len(callee.attempts) == 3
    assert [(each.number, each.error) for each in attempts_of(error)] == [
        (1, "OSError: first"),
        (2, "OSError: second"),
        (3, "OSError: third"),
    ]
    assert [note for note in error.__notes__ if "first" in note] == [
        "callcast: attempt 1 took 0.000 s: OSError: first"
    ]
    assert bench.why() == ["retried", "retried", "exhausted"]


async def test_an_error_of_ours_carries_its_attempts_too() -> None:
    bench = Bench(attempts=2)
    error = await bench.failure(Callee(bench.clock, refused(), refused(), takes=0.25))
    assert isinstance(error, NotSent)
    assert [each.took for each in error.attempts] == [0.25, 0.25]
    assert len(error.__notes__) == 2


@pytest.mark.parametrize(
    ("is_idempotent", "on", "error", "attempts"),
    [
        (False, None, NotSent("no connection"), 3),
        (False, None, Unanswered("lost"), 1),
        (False, None, Remote("x", status=503), 1),
        (False, None, OSError("x"), 1),
        (True, None, Unanswered("lost"), 3),
        (True, None, Remote("x", status=503), 3),
        (True, None, Remote("x", status=429), 3),
        (True, None, Remote("x", status=404), 1),
        (True, None, OSError("x"), 3),
        (True, None, Misuse("wrong"), 1),
        (True, None, BulkheadFull("full"), 1),
        (True, None, CircuitOpen("open", retry_after=9.0), 1),
        (False, OSError, ConnectionResetError("x"), 3),
        (False, (OSError, ValueError), ValueError("x"), 3),
        (True, OSError, ValueError("x"), 1),
        (True, OSError, NotSent("x"), 3),
        (False, lambda error: "again" in str(error), ValueError("again"), 3),
        (False, lambda error: "again" in str(error), ValueError("never"), 1),
        (False, Remote, Remote("x", status=404), 3),
    ],
)
async def test_only_what_is_harmless_is_repeated(
    is_idempotent: bool, on: RetryOn, error: Exception, attempts: int
) -> None:
    bench = Bench(is_idempotent=is_idempotent, on=on)
    callee = Callee(bench.clock, error, error, error)
    assert await bench.failure(callee) is error
    assert len(callee.attempts) == attempts


async def test_a_callee_that_asks_for_time_gets_it() -> None:
    bench = Bench()
    callee = Callee(bench.clock, overloaded(7.5), overloaded(0.0))
    assert await bench.run(callee) == "answer"
    assert [when for when, _ in callee.attempts] == [1_000.0, 1_007.5, 1_009.5]


async def test_a_wait_that_does_not_fit_the_deadline_fails_at_once_and_is_told() -> None:
    bench = Bench()
    callee = Callee(bench.clock, overloaded(3_600.0))
    error = await bench.failure(callee, a_call(deadline=1_002.0))
    assert isinstance(error, Remote)
    assert error.retry_after == 3_600.0
    assert len(callee.attempts) == 1
    assert bench.why() == ["deadline"]


@pytest.mark.parametrize(("deadline", "attempts"), [(1_001.0, 1), (1_001.0005, 1), (1_001.002, 2)])
async def test_a_retry_starts_only_if_it_can_end_in_time(deadline: float, attempts: int) -> None:
    bench = Bench(attempts=2)
    callee = Callee(bench.clock, refused(), refused())
    await bench.failure(callee, a_call(deadline=deadline))
    assert len(callee.attempts) == attempts


@pytest.mark.parametrize(
    ("error", "upstream_attempt", "is_it"),
    [
        (overloaded(do_not_retry=True), 1, True),
        (overloaded(), 1, False),
        (overloaded(), 2, True),
        (Remote("x", status=429), 3, True),
        (Remote("x", status=500), 2, False),
        (OSError("x"), 2, False),
    ],
)
async def test_retries_do_not_multiply(
    error: Exception, upstream_attempt: int, is_it: bool
) -> None:
    work = a_call(context=a_context(upstream_attempt=upstream_attempt))
    assert is_forbidden(error, work) is is_it
    bench = Bench()
    callee = Callee(bench.clock, error)
    if is_it:
        assert await bench.failure(callee, work) is error
        assert bench.why() == ["forbidden"]
    else:
        assert await bench.run(callee, work) == "answer"


def test_an_overload_is_not_forbidden_outside_a_handler() -> None:
    assert not is_forbidden(overloaded(), a_call())


async def test_an_empty_budget_stops_retries() -> None:
    bench = Bench(tokens=2.0)
    error = await bench.failure(Callee(bench.clock, refused()))
    assert isinstance(error, NotSent)
    assert bench.why() == ["budget_denied"]


async def test_rejections_of_our_own_cost_no_budget() -> None:
    bench = Bench()
    for error in (CircuitOpen("open", retry_after=1.0), BulkheadFull("full")):
        await bench.failure(Callee(bench.clock, error))
    assert bench.budget.tokens == 100.0
    assert bench.seen.facts == []


@pytest.mark.parametrize(
    ("is_idempotent", "on", "error", "tokens"),
    [
        (True, None, OSError("x"), 49.0),
        (False, None, OSError("x"), 49.0),
        (False, None, Remote("x", status=503), 49.0),
        (False, None, Remote("x", status=404), 50.1),
        (True, OSError, ValueError("x"), 49.0),
        (False, None, NotSent("x"), 49.0),
        (False, Remote, Remote("x", status=404), 49.0),
    ],
)
async def test_what_failed_takes_a_token_also_where_it_is_not_repeated(
    is_idempotent: bool, on: RetryOn, error: Exception, tokens: float
) -> None:
    bench = Bench(attempts=1, is_idempotent=is_idempotent, on=on)
    for _ in range(50):
        bench.budget.fail()
    await bench.failure(Callee(bench.clock, error))
    assert bench.budget.tokens == pytest.approx(tokens)


async def test_it_never_sleeps_against_an_open_circuit() -> None:
    bench = Bench(circuit_wait=lambda _now: 30.0)
    failure = Remote("down", status=500)
    callee = Callee(bench.clock, failure)
    assert await bench.failure(callee) is failure
    assert len(callee.attempts) == 1
    assert bench.why() == ["circuit_open"]


async def test_a_circuit_that_opens_during_the_wait_does_not_hide_the_failure() -> None:
    bench = Bench()
    failure = Remote("down", status=500)
    callee = Callee(bench.clock, failure, CircuitOpen("open", retry_after=30.0))
    assert await bench.failure(callee) is failure
    assert [each.number for each in failure.attempts] == [1, 2]
    assert "CircuitOpen" in failure.attempts[1].error


async def test_a_cancelled_call_is_not_repeated_and_takes_no_token() -> None:
    bench = Bench()
    callee = Callee(bench.clock, refused())
    task = asyncio.ensure_future(bench.layer(a_call(), callee))
    await bench.clock.rest()
    task.cancel()  # while it waits for its second attempt
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(callee.attempts) == 1
    assert bench.budget.tokens == 99.0
    again = Callee(bench.clock, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await bench.layer(a_call(), again)
    assert bench.budget.tokens == 99.0


async def test_concurrent_calls_do_not_share_their_attempts() -> None:
    bench = Bench(attempts=2)
    callees = [Callee(bench.clock, OSError(str(n)), OSError(str(n))) for n in range(20)]
    tasks = [asyncio.ensure_future(bench.layer(a_call(), callee)) for callee in callees]
    await bench.clock.advance(10.0)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    for number, error in enumerate(errors):
        assert isinstance(error, OSError)
        assert [each.error for each in attempts_of(error)] == [f"OSError: {number}"] * 2


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_the_delay_is_full_jitter_and_never_overflows(attempt: int, share: float) -> None:
    judge = Bench(base=0.05, cap=5.0, dice=lambda: share).judge
    delay = judge.jittered(attempt)
    most = min(5.0, 0.05 * 2 ** min(attempt - 1, 20))
    assert delay == pytest.approx(share * most)
    assert 0.0 <= delay <= 5.0
