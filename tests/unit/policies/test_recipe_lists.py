"""The four recipes as lists: what is in them, in which order, and orders that are refused."""

from __future__ import annotations

import pytest
from policies_kit import Remembering, Tracing, ports_of

from callcast.core.contract import Operation
from callcast.core.errors import Misuse, NotSent
from callcast.core.outcome import Outcome
from callcast.core.work import Kind, Layer, Next, Work
from callcast.policies.chain import chain
from callcast.policies.notes import Origin
from callcast.policies.recovery import Recovery
from callcast.policies.silent import Silent
from callcast.runtime import recipes
from callcast.runtime.guards import Guards
from callcast.runtime.policy import Bulkhead, CircuitBreaker, Policy, Retry
from callcast.testing.clock import ManualClock

STOCK = Operation("inventory.stock", str, int, idempotent=True)
RESERVE = Operation("inventory.reserve", str, int)


class Inbox:
    """Stands where the inbox layer does."""

    async def __call__(self, work: Work, proceed: Next[Outcome], /) -> Outcome:
        return await proceed(work)


def calling(policy: Policy, operation: Operation[str, int] | None = STOCK) -> list[str]:
    ports = ports_of(ManualClock(), Tracing())
    return recipes.names(recipes.call(policy, operation, ports, has_timer=True))


def consuming(inbox: Layer[Outcome] | None = None) -> list[Layer[Outcome]]:
    origin = Origin(source="t", group="g", handler="h", host="h", version="1")
    parts = recipes.Consuming(
        recovery=Recovery(), origin=origin, type="t", decode=lambda body: body, inbox=inbox
    )
    return recipes.consume(parts, ports_of(ManualClock()))


def test_a_call_is_guarded_in_this_order() -> None:
    assert calling(Policy()) == [
        "Trace",
        "Measure",
        "Deadline(1 s)",
        "Retry(3 attempts)",
        "CircuitBreaker(closed)",
        "Bulkhead(64)",
        "AttemptTimeout(0.5 s)",
    ]


def test_what_is_not_configured_is_left_out() -> None:
    policy = Policy(retry=None, breaker=None, bulkhead=None)
    assert calling(policy) == ["Trace", "Measure", "Deadline(1 s)", "AttemptTimeout(the deadline)"]
    ports = ports_of(ManualClock(), Silent())
    assert recipes.names(recipes.call(policy, None, ports, has_timer=False)) == [
        "Deadline(inherited)",
        "AttemptTimeout(the deadline)",
    ]


@pytest.mark.parametrize(
    ("policy", "operation", "attempt"),
    [
        (Policy(), STOCK, "0.5 s"),
        (Policy(), RESERVE, "the deadline"),  # no answer means no retry: it gets all the time
        (Policy(idempotent=True), RESERVE, "0.5 s"),
        (Policy(retry_on=OSError), RESERVE, "0.5 s"),
        (Policy(attempt_timeout=0.2), RESERVE, "0.2 s"),
        (Policy(deadline=4.0), STOCK, "2 s"),
        (Policy(retry=None), STOCK, "the deadline"),
        (Policy(idempotent=True), None, "the deadline"),
        (Policy(deadline=3.0, idempotent=True), None, "1.5 s"),
    ],
)
def test_an_attempt_that_may_be_repeated_gets_half_of_the_deadline(
    policy: Policy, operation: Operation[str, int] | None, attempt: str
) -> None:
    assert calling(policy, operation)[-1] == f"AttemptTimeout({attempt})"


def test_the_deadline_of_a_peers_policy_bounds_its_operations() -> None:
    assert calling(Policy(deadline=0.3))[2] == "Deadline(0.3 s)"
    assert calling(Policy(deadline=7.0), None)[2] == "Deadline(7 s)"


def test_a_request_is_served_in_this_order() -> None:
    ports = ports_of(ManualClock(), Remembering())
    assert recipes.names(recipes.serve(ports)) == ["ServedDeadline", "ValidateRequest"]
    ports = ports_of(ManualClock(), Tracing())
    assert recipes.names(recipes.serve(ports)) == [
        "Trace",
        "Measure",
        "ServedDeadline",
        "ValidateRequest",
    ]


def test_a_message_is_published_in_this_order() -> None:
    ports = ports_of(ManualClock(), Tracing())
    assert recipes.names(recipes.publish(ports)) == [
        "Trace",
        "Measure",
        "Deadline(inherited)",
        "Retry(3 attempts)",
    ]
    assert recipes.names(recipes.publish(ports, Retry(5)))[-1] == "Retry(5 attempts)"


async def test_messages_that_the_broker_refuses_take_nothing_from_the_retries_of_others() -> None:
    clock = ManualClock()
    failures: list[Exception] = [NotSent("too large") for _ in range(100)]
    away = NotSent("no connection")
    away.__cause__ = ConnectionRefusedError()
    failures.append(away)
    attempts: list[int] = []

    async def send(work: Work) -> None:
        attempts.append(work.attempt)
        if failures:
            raise failures.pop(0)

    publish = chain(recipes.publish(ports_of(clock), Retry(base=0.0)), send)
    for _ in range(100):
        with pytest.raises(NotSent, match="too large"):
            await publish(Work(Kind.PUBLISH, "orders.placed", "m-1"))
    assert attempts == [1] * 100
    await publish(Work(Kind.PUBLISH, "orders.placed", "m-2"))
    assert attempts[100:] == [1, 2]


def test_a_message_is_consumed_in_this_order() -> None:
    without = ["Recover", "Expire", "Validate", "Repeat", "Timeout"]
    assert recipes.names(consuming()) == without
    assert recipes.names(consuming(Inbox())) == [*without[:4], "Inbox", "Timeout"]


def test_every_order_known_to_be_wrong_is_refused() -> None:
    ports = ports_of(ManualClock(), Tracing())
    call = recipes.call(Policy(), STOCK, ports, has_timer=True)
    right = {recipes._kind(layer): layer for layer in [*call, *consuming(Inbox())]}
    for outer, inner, why in recipes.WRONG:
        with pytest.raises(Misuse, match=why):
            recipes.checked([right[outer], right[inner]])  # type: ignore[misc]
        assert recipes.checked([right[inner], right[outer]])  # type: ignore[misc]


def test_calls_to_one_peer_share_their_state_and_peers_do_not() -> None:
    policy = Policy()
    calling(policy, STOCK)
    calling(policy, RESERVE)
    inventory = policy.guards("inventory")
    assert inventory.circuit("inventory.stock") is inventory.circuit("inventory.reserve")
    assert policy.guards("inventory") is inventory
    assert policy.guards("payments") is not inventory
    assert Policy().guards("inventory") is not inventory


def test_a_circuit_for_each_operation_if_asked() -> None:
    guards = Policy(breaker=CircuitBreaker(per_operation=True)).guards("inventory")
    assert guards.circuit("a") is not guards.circuit("b")
    assert guards.circuit("a") is guards.circuit("a")


def test_a_guard_that_is_not_configured_is_none() -> None:
    guards = Guards(None, None, None)
    assert (guards.budget, guards.slots, guards.circuit()) == (None, None, None)
    guards.resize(3)  # of nothing
    with_slots = Guards(None, None, Bulkhead(2, 1))
    with_slots.resize(3)
    assert with_slots.slots is not None
    assert with_slots.slots.limit == 3
