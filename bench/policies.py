"""What the guards around a call cost: callcast, tenacity, stamina, circuitbreaker, pybreaker.

``python bench/policies.py [--rounds N] [--quick]``: prints nanoseconds per call and ratios, writes
``bench/results/policies.json``, exits 1 when a goal is missed. Everyone guards the same function,
which does nothing and succeeds. Nobody waits for anything, so the time is the CPU time of the
thread: what other programs take from the machine meanwhile is not counted. pybreaker guards a
plain function: its asynchronous interface needs tornado.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import circuitbreaker
import msgspec
import pybreaker
import stamina
import tenacity
from harness import Goal, Report, alternate, versions

from callcast.core.contract import Operation
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Kind, Work
from callcast.policies.breaker import BreakerLayer
from callcast.policies.chain import chain
from callcast.policies.notes import Origin
from callcast.policies.recovery import Recovery
from callcast.policies.silent import Silent
from callcast.ports.failpoints import nowhere
from callcast.runtime import recipes
from callcast.runtime.chance import Ids, system_dice
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.policy import Policy
from callcast.runtime.ports import Ports

ROUND = 0.15
"""Seconds per contender and round: long beside the clock, short beside the machine's moods."""
STOCK = Operation("inventory.stock", str, int, idempotent=True)
PORTS = Ports(
    clock=AsyncioClock(), dice=system_dice, new_id=Ids(), observer=Silent(), failpoints=nowhere
)

BARE = "nothing around it"
BREAKER = "callcast: breaker alone"
CHAIN = "callcast: deadline, retry + budget, breaker, bulkhead"
RECIPE = "callcast: CALL recipe, transport with a timer"
GUARDED = "callcast: Policy() around a function"
TIMED = "callcast: Policy(deadline=) around a function, timer armed"
CONSUME = "callcast: CONSUME recipe, typed"
STACK = "tenacity + circuitbreaker"
PYBREAKER = "pybreaker (a plain function)"


async def nothing() -> int:
    return 1


async def answer(_work: Work) -> object:
    return 1


async def done(_work: Work) -> Outcome:
    return DONE


def timed(call: Callable[[], Awaitable[object]], expected: float) -> Callable[[], float]:
    """Nanoseconds per call of one round; `expected` microseconds say how many calls make one."""
    calls = max(1_000, int(ROUND / (expected * 1e-6)))

    async def one_round() -> float:
        start = time.thread_time_ns()
        for _ in range(calls):
            await call()
        return (time.thread_time_ns() - start) / calls

    return lambda: asyncio.run(one_round())


def timed_plain(call: Callable[[], object], expected: float) -> Callable[[], float]:
    calls = max(1_000, int(ROUND / (expected * 1e-6)))

    def one_round() -> float:
        start = time.thread_time_ns()
        for _ in range(calls):
            call()
        return (time.thread_time_ns() - start) / calls

    return one_round


def ours() -> dict[str, Callable[[], float]]:
    work = Work(
        Kind.CALL, STOCK.name, "call-1", STOCK, STOCK.service, "tea",
        deadline=PORTS.clock.now() + 86_400.0,
    )  # fmt: skip
    recipe = recipes.call(Policy(), STOCK, PORTS, has_timer=True)
    circuit = Policy().guards().circuit()
    assert circuit is not None
    alone = chain([BreakerLayer(circuit, clock=PORTS.clock, observer=PORTS.observer)], answer)
    guards = chain(recipe[:-1], answer)  # all but the attempt timeout
    whole = chain(recipe, answer)
    guarded = Policy()(nothing)
    bounded = Policy(deadline=60.0)(nothing)
    message = Message("m-1", "orders", "orders.placed", "orders.placed", b'"tea"')
    delivery = Work(
        Kind.CONSUME, message.type, message.id, peer="warehouse", value=message.body,
        message=message,
    )  # fmt: skip
    parts = recipes.Consuming(
        recovery=Recovery(),
        origin=Origin(source="t", group="g", handler="h", host="h", version="1"),
        type=message.type,
        decode=msgspec.json.Decoder(str).decode,
    )
    consume = chain(recipes.consume(parts, PORTS), done)
    return {
        BARE: timed(lambda: answer(work), 0.15),
        BREAKER: timed(lambda: alone(work), 0.5),
        CHAIN: timed(lambda: guards(work), 1.5),
        RECIPE: timed(lambda: whole(work), 2.0),
        GUARDED: timed(guarded, 2.0),
        TIMED: timed(bounded, 7.0),
        CONSUME: timed(lambda: consume(delivery), 3.0),
    }


def theirs() -> dict[str, Callable[[], float]]:
    retrying = tenacity.retry(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=5.0),
        retry=tenacity.retry_if_exception_type(OSError),
        reraise=True,
    )
    stack = retrying(circuitbreaker.CircuitBreaker(name="stack")(nothing))
    single = circuitbreaker.CircuitBreaker(name="single")(nothing)
    patient = stamina.retry(on=OSError, attempts=3, timeout=1.0)(nothing)
    plain = pybreaker.CircuitBreaker()
    return {
        "circuitbreaker": timed(single, 1.0),
        PYBREAKER: timed_plain(lambda: plain.call(int), 3.0),
        "stamina": timed(patient, 20.0),
        "tenacity": timed(retrying(nothing), 25.0),
        STACK: timed(stack, 27.0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    report = Report(
        bench="policies",
        unit="ns",
        versions=versions(
            "callcast", "tenacity", "stamina", "circuitbreaker", "pybreaker", "msgspec"
        ),
        settings={
            "round_seconds": ROUND,
            "clock": "CPU time of the thread",
            "function": "does nothing and succeeds",
            "callcast": "default Policy: 3 attempts, budget 100, window 100, 64 at a time",
            "tenacity": "3 attempts, random exponential wait, reraise",
            "stamina": "3 attempts, timeout 1 s",
            "circuitbreaker": "its defaults",
            "pybreaker": "its defaults",
        },
    )
    report.figures = alternate({**ours(), **theirs()}, rounds=rounds)
    stack = report.ratio(STACK, CHAIN)
    report.ratio(STACK, GUARDED)
    report.ratio("stamina", GUARDED)
    report.ratio("tenacity", GUARDED)
    report.ratio("circuitbreaker", BREAKER)
    report.ratio(PYBREAKER, BREAKER)
    figures = report.figures
    report.goals = [
        Goal("policy chain: tenacity + circuitbreaker cost", stack.median, ">=", 12.0, "x"),
        Goal("policy chain, no timer", figures[CHAIN].median / 1_000, "<=", 2.0, "us"),
        Goal("breaker alone", figures[BREAKER].median / 1_000, "<=", 1.0, "us"),
        Goal("guards with a timer", figures[TIMED].median / 1_000, "<=", 6.0, "us"),
    ]
    if not options.quick:
        return report.finish()
    with tempfile.TemporaryDirectory() as nowhere:
        report.finish(Path(nowhere))
    return 0


if __name__ == "__main__":
    sys.exit(main())
