"""What is told about work bears the ids of that work."""

from __future__ import annotations

import pytest
from policies_kit import Remembering, Tracing, a_call, a_context, a_delivery, lock

from callcast.core.context import AMBIENT, Context
from callcast.core.errors import BulkheadFull, CircuitOpen, NotSent
from callcast.core.work import Kind, Work
from callcast.policies.breaker import Breaker, BreakerLayer
from callcast.policies.budget import Budget
from callcast.policies.bulkhead import BulkheadLayer, Slots
from callcast.policies.options import Bulkhead, CircuitBreaker, Retry
from callcast.policies.retry import Judge, RetryLayer, repeats
from callcast.policies.telling import ids_of
from callcast.ports.observer import Fact
from callcast.runtime.tasks import AsyncioGate
from callcast.testing.clock import ManualClock


def ids(context: Context | None) -> tuple[str, str, str | None] | None:
    return context and (context.message_id, context.correlation_id, context.causation_id)


class Named(Remembering):
    """Remembers in whose name each fact was told."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[tuple[str, tuple[str, str, str | None] | None]] = []

    def tell(self, fact: Fact) -> None:
        self.names.append((type(fact).__name__, ids(AMBIENT.get())))


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (a_call(), ("call-1", "call-1", None)),
        (a_call(context=a_context()), ("call-1", "c-1", "m-1")),
        (a_delivery(), ("m-1", "m-1", None)),
        (Work(Kind.CALL, "shop.price", context=a_context()), ("m-1", "c-1", None)),
        (Work(Kind.CALL, "shop.price"), None),
    ],
)
def test_work_has_ids(work: Work, expected: tuple[str, str, str | None] | None) -> None:
    assert ids(ids_of(work)) == expected


def test_an_observer_is_told_of_success_unless_it_says_otherwise() -> None:
    assert Tracing().hears_success


async def down(work: Work) -> str:
    raise NotSent("no connection")


async def test_a_retry_is_told_in_the_name_of_its_call() -> None:
    seen, clock = Named(), ManualClock()
    judge = Judge(
        Retry(1),
        Budget(9.0, 0.1, lock=lock()),
        dice=lambda: 0.0,
        repeats=repeats(is_idempotent=True),
    )
    with pytest.raises(NotSent):
        await RetryLayer(judge, clock=clock, observer=seen)(a_call(), down)
    assert seen.names == [("Retried", ("call-1", "call-1", None))]
    assert AMBIENT.get() is None


async def test_a_rejection_is_told_in_the_name_of_its_call() -> None:
    seen, clock = Named(), ManualClock()
    slots = Slots(Bulkhead(1), lock=lock())
    assert slots.take()
    with pytest.raises(BulkheadFull):
        await BulkheadLayer(slots, clock=clock, observer=seen, gate=AsyncioGate)(a_call(), down)
    assert seen.names == [("Rejected", ("call-1", "call-1", None))]


async def test_a_circuit_changes_in_the_name_of_the_call_that_changed_it() -> None:
    seen, clock = Named(), ManualClock()
    breaker = Breaker(CircuitBreaker(consecutive=1), lock=lock())
    layer = BreakerLayer(breaker, clock=clock, observer=seen, slow_call=None)
    for error in (NotSent, CircuitOpen):
        with pytest.raises(error):
            await layer(a_call(), down)
    mine = ("call-1", "call-1", None)
    assert seen.names == [("CircuitChanged", mine), ("Rejected", mine)]
