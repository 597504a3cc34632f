"""What code declares and what the local record counted, as one system."""

from __future__ import annotations

from typing import Any

from trace_parts import BEGAN

from callcast import Event, Needs, Operation, Policy, Service, Transaction
from callcast.advise.declared import declared, joined, over
from callcast.advise.model import (
    Edge,
    Handler,
    Interaction,
    Measured,
    Step,
    System,
    Terms,
    Verb,
)
from callcast.advise.recorded import from_record
from callcast.core.histogram import Histogram
from callcast.core.recorded import OTHER, RecordedEdge, RecordedSpan
from callcast.runtime.settings import Settings

RESERVE = Operation("stock.reserve", str, int, idempotent=True, deadline=2.0, needs=Needs(slo=99.9))
SEND = Operation("mail.send", str, None)
PLACED = Event("orders.placed", str, key=str)
stock, mail = Service("stock"), Service("mail")


@stock.serves(RESERVE)
async def reserve(sku: str) -> int:
    return len(sku)


@mail.on(PLACED)
async def tell(order: str, tx: Transaction) -> None:
    await tx.execute("select 1")


def said(settings: Settings | None = None) -> Any:
    return declared([SEND, PLACED], [stock, mail], settings or Settings())


def test_a_contract_says_what_its_caller_needs() -> None:
    found = said()
    assert set(found) == {"stock.reserve", "mail.send", "orders.placed"}
    assert found["stock.reserve"].needs == Needs(response="value", needed_within=2.0, slo=99.9)
    assert found["mail.send"].needs == Needs(response="ack", needed_within=1.0)
    assert found["orders.placed"].needs == Needs(response="none", coupling="unknown")
    assert found["orders.placed"].is_event


def test_a_contract_its_handler_and_the_policy_say_its_terms() -> None:
    found = said()
    asked, once, fact = (
        found[name].terms for name in ("stock.reserve", "mail.send", "orders.placed")
    )
    assert (asked.deadline, asked.is_idempotent) == (2.0, True)
    assert once.attempts == 1
    assert once.backoff_max == 0
    assert once.is_idempotent is False
    assert (fact.is_keyed, fact.is_idempotent, fact.has_dead_letters) == (True, True, True)
    assert fact.retry_horizon is not None
    assert fact.retry_horizon > 600
    assert "test_declared_and_recorded.py:" in found["orders.placed"].at
    tight = said(Settings(policy=Policy(attempt_timeout=0.25)))
    assert tight["stock.reserve"].terms.attempt_timeout == 0.25


def test_what_is_declared_is_joined_to_what_was_measured() -> None:
    edge, other = Edge("orders", "mail", "orders.placed"), Edge("mail", "x", "y")
    numbers = Measured(count=3)
    system = System(
        interactions={
            edge: Interaction(
                edge=edge, verb=Verb.CAST, terms=Terms(has_outbox=True), measured=numbers
            ),
            other: Interaction(edge=other, verb=Verb.CALL),
        },
        handlers={
            ("mail", "orders.placed"): Handler(
                service="mail", name="orders.placed", steps=(Step(other, 0),)
            )
        },
    )
    found = joined(system, said()).interactions
    assert found[edge].verb is Verb.PUBLISH
    assert found[edge].measured is numbers
    assert found[edge].terms.has_outbox
    assert found[edge].terms.is_keyed
    assert found[other].terms == Terms(in_transaction=True)
    assert found[other].needs == Needs()


def test_terms_that_are_known_go_over_those_that_are_not() -> None:
    assert over(Terms(attempts=3, is_saga_step=True), Terms(deadline=1.0, has_outbox=False)) == (
        Terms(attempts=3, deadline=1.0, has_outbox=False, is_saga_step=True)
    )


def histogram(*seconds: float) -> Histogram:
    found = Histogram()
    for each in seconds:
        found.record(each)
    return found


def recorded(caller: str, callee: str, name: str, **more: Any) -> RecordedEdge:
    return RecordedEdge(
        **{"caller": caller, "callee": callee, "name": name, "window": 60.0, **more}
    )


def test_both_sides_of_the_record_are_one_interaction() -> None:
    edges = [
        recorded("orders", "stock", "stock.reserve", verb="call", side="caller", count=10, errors=1,
                 attempts=12, latency=histogram(0.1), traces=10),
        recorded("", "stock", "stock.reserve", verb="call", side="callee", count=11,
                 work=histogram(0.05)),
        recorded("orders", "pay", "pay.it", verb="call", side="caller", count=1),
        recorded("orders", "", "orders.placed", verb="publish", side="caller", count=5,
                 latency=histogram(0.01), traces=5),
        recorded("orders", "mail", "orders.placed", verb="publish", side="callee", count=5,
                 attempts=6, work=histogram(0.2), queue_time=histogram(1.0)),
        recorded("", "mail", "lost", verb="cast", side="callee", count=1),
        recorded("web", "orders", "callcast.replies.1", verb="cast", side="callee", count=1),
        recorded("orders", OTHER, OTHER, verb="call", side="caller", count=99),
    ]  # fmt: skip
    system = from_record(edges, [])
    call = system.interactions[Edge("orders", "stock", "stock.reserve")].measured
    fact = system.interactions[Edge("orders", "mail", "orders.placed")]
    assert call is not None
    assert fact.measured is not None
    assert (call.count, call.errors, call.attempts, call.traces) == (10, 1, 12, 10)
    assert (call.latency.count, call.work.count) == (1, 1)
    assert fact.verb is Verb.PUBLISH
    assert (fact.measured.count, fact.measured.attempts, fact.measured.traces) == (5, 6, 5)
    assert fact.measured.latency.count == fact.measured.queue_time.count == 1
    assert Edge("orders", "pay", "pay.it") in system.interactions
    assert len(system.interactions) == 3
    assert system.dropped == {"edges beyond the bound of the record, counted together": 1}
    assert system.window == 60.0
    assert system.sources == ("the local record",)


def test_an_empty_record_is_an_empty_system() -> None:
    assert from_record([], []).interactions == {}


def test_the_spans_of_the_record_say_the_order_and_its_edges_the_numbers() -> None:
    def span(number: int, above: int, service: str, name: str, **more: Any) -> RecordedSpan:
        return RecordedSpan(
            trace_id="1", span_id=str(number), parent_id=str(above) if above else "",
            service=service, name=name, start=BEGAN + number * 0.1, took=0.05, **more,
        )  # fmt: skip

    spans = [
        span(1, 0, "orders", "POST", kind="server"),
        span(2, 1, "orders", "call stock.reserve", is_error=True,
             attributes={"callcast.peer": "stock", "callcast.operation": "stock.reserve"}),
        span(3, 2, "orders", "POST", kind="client", attributes={"callcast.peer": "stock"}),
        span(4, 3, "stock", "POST", kind="server",
             attributes={"callcast.operation": "stock.reserve"}),
        span(5, 1, "orders", "call stock.reserve",
             attributes={"callcast.peer": "stock", "callcast.operation": "stock.reserve"}),
    ]  # fmt: skip
    edge = Edge("orders", "stock", "stock.reserve")
    row = recorded("orders", "stock", "stock.reserve", verb="call", side="caller", count=10,
                   attempts=10)  # fmt: skip
    system = from_record([row], spans)
    assert list(system.interactions) == [edge]
    numbers = system.interactions[edge].measured
    assert numbers is not None
    assert (numbers.count, numbers.attempts) == (10, 20)
    assert [step.edge for step in system.handlers["orders", "POST"].steps] == [edge]


def test_failures_are_of_all_that_was_served_and_not_of_the_spans_that_were_kept() -> None:
    """Spans are kept of all that failed, and of what went well only some."""
    spans = [
        RecordedSpan(
            trace_id=str(number), span_id=str(number), service="bank", name="bank.charge",
            kind="server", start=BEGAN + number, took=0.01, is_error=number < 2,
            attributes={"callcast.operation": "bank.charge"},
        )
        for number in range(4)
    ]  # fmt: skip

    def bank(served: int) -> float | None:
        row = recorded("shop", "bank", "bank.charge", verb="call", side="callee", count=served)
        return from_record([row], spans).handlers["bank", "bank.charge"].availability

    assert bank(100) == 0.98
    assert bank(3) == 0.5
    assert from_record([], spans).handlers["bank", "bank.charge"].availability == 0.5


def test_answers_over_a_queue_are_no_messages_of_their_own() -> None:
    answers = recorded("web", "web", "callcast.replies", verb="publish", side="callee")
    assert from_record([answers], []).interactions == {}


def test_a_request_over_a_queue_stays_one() -> None:
    def span(number: int, above: int, service: str, kind: str, topic: str) -> RecordedSpan:
        return RecordedSpan(
            trace_id="1", span_id=str(number), parent_id=str(above), service=service, name=topic,
            kind=kind, start=BEGAN + number * 0.1, took=2.0,  # type: ignore[arg-type]
            attributes={"messaging.destination.name": topic} if topic != "page" else {},
        )  # fmt: skip

    spans = [
        span(1, 0, "web", "server", "page"),
        span(2, 1, "web", "producer", "price"),
        span(3, 2, "prices", "consumer", "price"),
        span(4, 3, "prices", "producer", "answers"),
        span(5, 4, "web", "consumer", "answers"),
    ]
    row = recorded("host", "prices", "price", verb="cast", side="callee", count=4, attempts=4)
    found = from_record([row], spans).interactions
    assert {str(edge): about.verb for edge, about in found.items()} == {
        "web->prices:price": Verb.REQUEST
    }


def test_of_a_message_whose_first_round_no_span_shows_the_record_counts() -> None:
    def span(number: int, service: str, kind: str, **more: Any) -> RecordedSpan:
        return RecordedSpan(
            trace_id="1", span_id=str(number), parent_id=str(number - 1), service=service,
            name="t", kind=kind, start=BEGAN, took=1.0,  # type: ignore[arg-type]
            attributes={"messaging.destination.name": "t", **more},
        )  # fmt: skip

    spans = [span(1, "a", "producer"), span(2, "b", "consumer", **{"callcast.delivery.round": 1})]
    row = recorded("a", "b", "t", verb="cast", side="callee", count=4, attempts=5)
    numbers = from_record([row], spans).interactions[Edge("a", "b", "t")].measured
    assert numbers is not None
    assert (numbers.count, numbers.attempts) == (4, 5)
