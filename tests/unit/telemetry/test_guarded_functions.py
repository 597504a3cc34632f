"""What a `Policy` around functions shows of itself, though nobody told it of OpenTelemetry."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from dataclasses import replace

import pytest
from opentelemetry import metrics, trace
from telemetry_kit import Watched

from callcast import CircuitBreaker, Policy
from callcast.core.context import AMBIENT, Context
from callcast.core.errors import BulkheadFull, CircuitOpen, NotSent
from callcast.policies.options import Bulkhead, Retry
from callcast.policies.silent import Silent
from callcast.ports.observer import Fact
from callcast.runtime.system import system_ports
from callcast.telemetry.logs import fields_of
from callcast.telemetry.otel import LOOK_EVERY, OtelObserver

OPERATION, PEER = "callcast.operation", "callcast.peer"
ERRORS = "callcast.core.errors."


class Remembering(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """An SDK that the program has set up; OpenTelemetry lets a process do so only once."""
    watched = Watched()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: watched.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: watched.meters)
    return watched


async def price(sku: str) -> int:
    if sku == "nowhere":
        raise NotSent("no connection")
    return len(sku)


async def stock(sku: str) -> int:
    return len(sku)


async def test_calls_retries_and_circuits_of_a_guarded_function_are_in_the_metrics(
    sdk: Watched,
) -> None:
    policy = Policy(
        retry=Retry(attempts=2, base=0.0), breaker=CircuitBreaker(consecutive=2), name="prices"
    )
    guarded = policy(price)
    assert await guarded("tea") == 3
    with pytest.raises(NotSent):
        await guarded("nowhere")
    with pytest.raises(CircuitOpen, match="the circuit of prices is open"):
        await guarded("tea")
    mine = ((OPERATION, "price"), (PEER, "prices"))
    assert sdk.points("callcast.retry.attempts") == {
        (*mine, ("outcome", "retried")): 1,
        (*mine, ("outcome", "exhausted")): 1,
    }
    assert sdk.points("callcast.circuit.state") == {((PEER, "prices"),): 1}
    assert sdk.points("callcast.call.rejected") == {(*mine, ("callcast.rejected.by", "circuit")): 1}
    assert sdk.points("callcast.bulkhead.in_flight") == {mine: 0}
    ends = {dict(labels).get("error.type") for labels in sdk.points("callcast.call.duration")}
    assert ends == {None, ERRORS + "NotSent", ERRORS + "CircuitOpen"}


async def test_a_guarded_function_is_a_span_around_its_attempts(sdk: Watched) -> None:
    with pytest.raises(NotSent):
        await Policy(retry=Retry(base=0.0)).run(price, "nowhere")
    assert sdk.span.name == "call price"
    assert sdk.span.attributes == {
        OPERATION: "price",
        PEER: "price",
        "error.type": ERRORS + "NotSent",
    }


async def test_functions_that_share_a_circuit_share_its_series(sdk: Watched) -> None:
    policy = Policy(retry=None, breaker=CircuitBreaker(consecutive=1))
    with pytest.raises(NotSent):
        await policy.run(price, "nowhere")
    with pytest.raises(CircuitOpen):
        await policy.run(stock, "tea")
    circuit = policy.guards().circuit()
    assert circuit is not None
    circuit.reset()
    assert await policy.run(stock, "tea") == 3  # the first call after it tells of the change
    assert sdk.points("callcast.circuit.state") == {((PEER, "price"),): 0}


async def test_a_full_bulkhead_of_a_policy_is_counted(sdk: Watched) -> None:
    policy = Policy(retry=None, bulkhead=Bulkhead(1))

    async def nested() -> int:
        return await policy.run(stock, "tea")

    with pytest.raises(BulkheadFull):
        await policy.run(nested)
    (labels,) = sdk.points("callcast.bulkhead.rejected")
    assert dict(labels)[OPERATION] == "stock"


async def test_arguments_never_become_names(sdk: Watched) -> None:
    class Client:
        async def __call__(self, sku: str) -> int:
            return len(sku)

    secret = functools.partial(price, "hunter2")
    assert await Policy().run(secret) == 7
    assert await Policy()(secret)() == 7
    assert await Policy().run(Client(), "tea") == 3
    names = [span.name for span in sdk.spans]
    assert names[:2] == ["call price", "call price"]
    assert names[2].endswith("Client.__call__")


async def test_an_sdk_that_comes_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    clock = watched.clock
    ports = replace(system_ports("memory://"), clock=clock, observer=OtelObserver(clock))
    policy = Policy(ports=ports)
    assert await policy.run(stock, "tea") == 3
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: watched.tracers)
    assert await policy.run(stock, "tea") == 3
    assert watched.spans == []
    clock.time += LOOK_EVERY
    assert await policy.run(stock, "tea") == 3
    assert watched.span.name == "call stock"


async def test_without_an_sdk_a_circuit_that_opens_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = Policy(retry=None, breaker=CircuitBreaker(consecutive=1), name="prices")
    token = AMBIENT.set(Context("m-1", "c-1"))
    try:
        with caplog.at_level(logging.WARNING, "callcast"), pytest.raises(NotSent):
            await policy.run(price, "nowhere")
    finally:
        AMBIENT.reset(token)
    (line,) = (record for record in caplog.records if record.name == "callcast")
    fields = fields_of(line)
    assert (fields["event"], fields["peer"], fields["after"]) == (
        "circuit changed",
        "prices",
        "open",
    )


async def test_a_policy_that_is_given_silence_tells_nobody(
    sdk: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    silent = replace(system_ports("memory://"), observer=Silent())
    policy = Policy(retry=None, breaker=CircuitBreaker(consecutive=1), ports=silent)
    with pytest.raises(NotSent):
        await policy.run(price, "nowhere")
    assert sdk.spans == []
    assert sdk.points("callcast.circuit.state") == {}
    assert caplog.records == []


def test_a_policy_loads_telemetry_at_its_first_call_only() -> None:
    program = (
        "import asyncio, sys\n"
        "from callcast import Policy\n"
        "async def one() -> int: return 1\n"
        "guarded = Policy()(one)\n"
        "early = 'opentelemetry' in sys.modules\n"
        "asyncio.run(guarded())\n"
        "print(early, 'opentelemetry' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == ["False", "True"]
