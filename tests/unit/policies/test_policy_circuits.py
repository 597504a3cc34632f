"""`Policy` around a function: its circuit breaker, and its bulkhead beside it."""

from __future__ import annotations

import asyncio

import pytest
from policies_kit import Guarded

from callcast.core.errors import (
    BulkheadFull,
    CircuitOpen,
)
from callcast.ports.observer import CircuitChanged, Rejected
from callcast.runtime.policy import Bulkhead, CircuitBreaker


async def test_an_open_circuit_is_not_called_and_closes_after_its_trials() -> None:
    guarded = Guarded()
    guarded.errors = [OSError("down")] * 5
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            await guarded.policy.run(guarded.function)
    with pytest.raises(CircuitOpen) as caught:
        await guarded.policy.run(guarded.function)
    assert guarded.calls == 5
    assert caught.value.retry_after == 30.0
    await guarded.clock.advance(30.1)
    for _ in range(3):
        await guarded.policy.run(guarded.function)
    facts = guarded.seen.facts
    assert [(fact.before, fact.after) for fact in facts if isinstance(fact, CircuitChanged)] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert [fact.by for fact in facts if isinstance(fact, Rejected)] == ["circuit"]


async def test_fifty_callers_of_a_circuit_on_trial_are_three_calls() -> None:
    guarded = Guarded(bulkhead=None)
    guarded.errors = [OSError("down")] * 5
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            await guarded.policy.run(guarded.function)
    await guarded.clock.advance(31.0)
    guarded.calls, guarded.takes = 0, 1.0
    tasks = [asyncio.ensure_future(guarded.policy.run(guarded.function)) for _ in range(50)]
    await guarded.clock.advance(1.0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert guarded.calls == 3
    assert results.count("X") == 3
    assert sum(isinstance(result, CircuitOpen) for result in results) == 47


async def test_cancelled_callers_count_nowhere_and_leave_no_slot_behind() -> None:
    guarded = Guarded(bulkhead=Bulkhead(1), breaker=CircuitBreaker(permitted=1))
    guards = guarded.policy.guards()
    circuit = guards.circuit()
    assert circuit is not None
    guarded.takes = 1.0
    for _ in range(30):
        task = asyncio.ensure_future(guarded.policy.run(guarded.function))
        await guarded.clock.rest()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert circuit.state == "closed"
    assert guards.budget is not None
    assert guards.budget.tokens == 100.0
    assert guards.slots is not None
    assert guards.slots.inside == 0


async def test_a_cancelled_trial_makes_the_next_call_the_trial() -> None:
    guarded = Guarded(breaker=CircuitBreaker(permitted=1))
    guarded.errors = [OSError("down")] * 5
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            await guarded.policy.run(guarded.function)
    await guarded.clock.advance(31.0)
    guarded.takes = 1.0
    trial = asyncio.ensure_future(guarded.policy.run(guarded.function))
    await guarded.clock.rest()
    with pytest.raises(CircuitOpen):
        await guarded.policy.run(guarded.function)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert await guarded.run() == "X"
    assert str(guarded.policy.guards().circuit().state) == "closed"  # type: ignore[union-attr]


async def test_answers_that_are_slow_open_the_circuit() -> None:
    guarded = Guarded(breaker=CircuitBreaker(slow_call=1.0))
    guarded.takes = 1.0
    for _ in range(20):
        await guarded.run(1.0)  # exactly: not slow
    guarded.takes = 1.001
    for _ in range(80):
        await guarded.run(1.001)
    circuit = guarded.policy.guards().circuit()
    assert circuit is not None
    assert circuit.state == "closed"
    for _ in range(20):
        await guarded.run(1.001)
    assert str(circuit.state) == "open"


async def test_answers_that_say_no_keep_the_circuit_closed() -> None:
    from callcast.core.errors import Refused

    guarded = Guarded()
    guarded.errors = [Refused("no such sku")] * 100
    for _ in range(100):
        with pytest.raises(Refused):
            await guarded.policy.run(guarded.function)
    circuit = guarded.policy.guards().circuit()
    assert circuit is not None
    assert circuit.state == "closed"


async def test_a_full_bulkhead_counts_for_nothing() -> None:
    guarded = Guarded(bulkhead=Bulkhead(1))
    guarded.takes = 1.0
    first = asyncio.ensure_future(guarded.policy.run(guarded.function))
    await guarded.clock.rest()
    for _ in range(50):
        with pytest.raises(BulkheadFull):
            await guarded.policy.run(guarded.function)
    circuit = guarded.policy.guards().circuit()
    assert circuit is not None
    assert circuit.state == "closed"
    await guarded.clock.advance(1.0)
    assert await first == "X"


async def test_a_limit_is_raised_while_calls_wait() -> None:
    guarded = Guarded(bulkhead=Bulkhead(1, queue=1))
    guarded.takes = 1.0
    tasks = [asyncio.ensure_future(guarded.policy.run(guarded.function)) for _ in range(2)]
    await guarded.clock.rest()
    assert guarded.calls == 1
    guarded.policy.guards().resize(2)
    await guarded.clock.rest()
    assert guarded.calls == 2
    await guarded.clock.advance(1.0)
    assert await asyncio.gather(*tasks) == ["X", "X"]
