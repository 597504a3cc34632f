"""Work and facts move the metrics of the conventions, and labels have bounds."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import metrics
from telemetry_kit import Watched, calling, consuming, message, publishing, serving

from callcast.core.errors import NotSent, Refused, Remote, Unanswered
from callcast.policies.notes import type_name
from callcast.ports import observer as facts
from callcast.telemetry.instruments import DISTINCT_MAX
from callcast.telemetry.otel import LOOK_EVERY, OtelObserver
from callcast.telemetry.spans import error_label

URL = "http://users.example:8080/users/7"
SOURCE = (
    ("messaging.consumer.group.name", "mail"),
    ("messaging.destination.name", "orders.placed"),
)


def test_each_kind_of_work_has_its_duration() -> None:
    watched = Watched()
    for work in (calling(), serving(), publishing(message=message()), consuming()):
        watched.observer.measure(work, 0.25, None)
    for name in (
        "callcast.call.duration",
        "http.server.request.duration",
        "messaging.client.operation.duration",
        "messaging.process.duration",
    ):
        assert list(watched.points(name).values()) == [0.25], name


def test_messages_that_were_sent_and_handled_are_counted() -> None:
    watched = Watched()
    watched.observer.measure(publishing(message=message()), 0.1, None)
    watched.observer.measure(publishing(message=message()), 0.1, NotSent("no broker"))
    watched.observer.measure(consuming(), 0.1, ValueError())
    assert list(watched.points("messaging.client.sent.messages").values()) == [1]
    assert list(watched.points("messaging.client.consumed.messages").values()) == [1]


def test_an_error_is_a_label_of_the_duration() -> None:
    watched = Watched()
    watched.observer.measure(serving(), 0.1, Refused("sold out", status=409))
    (labels,) = watched.points("http.server.request.duration")
    assert dict(labels) == {
        "error.type": "callcast.core.errors.Refused",
        "http.request.method": "GET",
        "http.response.status_code": 409,
        "http.route": "/users/{user_id}",
        "url.scheme": "http",
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 200),
        (ValueError("no"), 500),
        (Remote("their no", status=404), 502),
        (asyncio.CancelledError(), None),
    ],
)
def test_a_served_call_is_counted_under_the_status_that_answered_it(
    error: BaseException | None, status: int | None
) -> None:
    watched = Watched()
    watched.observer.measure(serving(), 0.1, error)
    (labels,) = watched.points("http.server.request.duration")
    assert dict(labels).get("http.response.status_code") == status
    assert dict(labels).get("error.type") == (None if error is None else type_name(error))


def test_each_attempt_is_timed_with_its_status() -> None:
    watched = Watched()
    attempt = watched.observer.attempt(calling(), URL)
    watched.clock.time += 0.5
    attempt.end(status=200)
    watched.observer.attempt(calling(attempt=2), URL).end(Unanswered("gone"))
    points = watched.points("http.client.request.duration")
    assert sorted(points.values()) == [0, 0.5]
    by_status = {dict(labels).get("http.response.status_code"): dict(labels) for labels in points}
    assert by_status[200]["server.address"] == "users.example"
    assert by_status[None]["error.type"] == "callcast.core.errors.Unanswered"


def test_calls_that_are_being_served_are_counted_up_and_down() -> None:
    watched = Watched()
    outer = watched.observer.begin(serving())
    inner = watched.observer.begin(serving())
    assert list(watched.points("http.server.active_requests").values()) == [2]
    inner.end()
    assert list(watched.points("http.server.active_requests").values()) == [1]
    outer.end()
    assert list(watched.points("http.server.active_requests").values()) == [0]


def test_attempts_that_hold_a_slot_of_a_bulkhead_are_counted_up_and_down() -> None:
    watched = Watched()
    other = OtelObserver(watched.clock, tracers=watched.tracers, meters=watched.meters)
    assert other.is_tracing
    with watched.observer.occupying(calling()):
        with pytest.raises(Unanswered), other.occupying(calling()):
            points = watched.points("callcast.bulkhead.in_flight")
            raise Unanswered("gone")
        ((labels, count),) = points.items()
        assert (dict(labels)["callcast.peer"], count) == ("users", 2)
        assert list(watched.points("callcast.bulkhead.in_flight").values()) == [1]
    assert list(watched.points("callcast.bulkhead.in_flight").values()) == [0]


def test_an_attempt_that_began_before_anybody_counted_is_not_counted_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched()
    observer = OtelObserver(watched.clock)
    with observer.occupying(calling()):
        monkeypatch.setattr(metrics, "get_meter_provider", lambda: watched.meters)
        watched.clock.time += LOOK_EVERY
        assert observer.is_tracing
    assert watched.points("callcast.bulkhead.in_flight") == {}


@pytest.mark.parametrize(
    ("fact", "name", "value", "labels"),
    [
        (
            facts.Retried("users.get", "users", "exhausted", 3),
            "callcast.retry.attempts",
            1,
            {"outcome": "exhausted"},
        ),
        (
            facts.CircuitChanged("users", "closed", "open"),
            "callcast.circuit.state",
            1,
            {"callcast.peer": "users"},
        ),
        (facts.CircuitChanged("users", "open", "half_open"), "callcast.circuit.state", 2, {}),
        (
            facts.CircuitChanged("users", "half_open", "closed"),
            "callcast.circuit.transitions",
            1,
            {"callcast.circuit.state.name": "closed"},
        ),
        (
            facts.Rejected("users.get", "users", "bulkhead"),
            "callcast.bulkhead.rejected",
            1,
            {"callcast.peer": "users"},
        ),
        (
            facts.Rejected("users.get", "users", "circuit"),
            "callcast.call.rejected",
            1,
            {"callcast.rejected.by": "circuit"},
        ),
        (
            facts.Settled("orders.placed/mail", "done", 4, 1.5),
            "callcast.delivery.attempts",
            4,
            dict(SOURCE),
        ),
        (
            facts.Settled("orders.placed/mail", "later", 1, 1.5),
            "callcast.queue.time",
            1.5,
            dict(SOURCE),
        ),
        (
            facts.Settled("orders.placed/mail", "dead", 20, 9.0, "Late('o-1')"),
            "callcast.dlq.messages",
            1,
            {"error.type": "Late"},
        ),
        (
            facts.DuplicateSeen("orders.placed/mail", "m-1"),
            "callcast.inbox.duplicates",
            1,
            {"callcast.consumer": "orders.placed/mail"},
        ),
        (facts.LeaseLost("orders.placed/mail", 3), "callcast.lease.lost", 3, dict(SOURCE)),
        (
            facts.Lagged("orders.placed/mail", 5, 2, 1, 7, 3.5),
            "callcast.queue.depth",
            6,
            dict(SOURCE),
        ),
        (
            facts.Lagged("orders.placed/mail", 5, 2, 1, 7, 3.5),
            "callcast.consumer.lag",
            8,
            dict(SOURCE),
        ),
        (
            facts.Lagged("orders.placed/mail", 5, 2, 1, 7, 3.5),
            "callcast.consumer.lag.time",
            3.5,
            dict(SOURCE),
        ),
        (
            facts.Lagged("orders.placed/mail", 5, 2, 1, 7, 3.5),
            "callcast.dlq.depth",
            7,
            dict(SOURCE),
        ),
        (
            facts.OutboxAged("orders", 12, 30.0),
            "callcast.outbox.pending",
            12,
            {"callcast.service": "orders"},
        ),
        (
            facts.OutboxAged("orders", 12, 30.0),
            "callcast.outbox.age",
            30,
            {"callcast.service": "orders"},
        ),
        (
            facts.KillSwitch("orders.placed/mail", "open"),
            "callcast.kill_switch.state",
            1,
            dict(SOURCE),
        ),
        (
            facts.ConsumerRebuilt("orders.placed/mail", 31.0),
            "callcast.consumer.rebuilt",
            1,
            dict(SOURCE),
        ),
        (
            facts.LoopBlocked("shop.pack", 0.4),
            "callcast.loop.blocked",
            0.4,
            {"callcast.handler": "shop.pack"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, facts.Fact) else str(value)[:40],
)
def test_a_fact_moves_its_metric(
    fact: facts.Fact, name: str, value: float, labels: dict[str, object]
) -> None:
    watched = Watched()
    watched.observer.tell(fact)
    ((found, measured),) = watched.points(name).items()
    assert measured == pytest.approx(value)
    assert labels.items() <= dict(found).items()


def test_a_fact_of_a_kind_unknown_here_moves_nothing() -> None:
    class Unheard(facts.Fact, frozen=True):
        source: str = ""

    watched = Watched()
    watched.observer.tell(Unheard())
    assert watched.points("callcast.dlq.messages") == {}


def test_a_release_is_no_last_verdict() -> None:
    watched = Watched()
    watched.observer.tell(facts.Settled("orders.placed/mail", "release", 1, 0.1))
    assert watched.points("callcast.delivery.attempts") == {}


def test_labels_beyond_their_bound_are_counted_together() -> None:
    watched = Watched()
    for n in range(DISTINCT_MAX + 50):
        watched.observer.tell(facts.Settled("orders.placed/mail", "dead", error=f"Error{n}()"))
    points = watched.points("callcast.dlq.messages")
    by_type = {dict(labels)["error.type"]: count for labels, count in points.items()}
    assert len(by_type) == DISTINCT_MAX + 1
    assert by_type["_OTHER"] == 50


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Late('o-1')", "Late"),
        ("shop.Late: order o-1", "shop.Late"),
        ("expired", "expired"),
        ("", "_OTHER"),
        ("order o-1 is late", "_OTHER"),
    ],
)
def test_the_label_of_an_error_is_its_class(text: str, label: str) -> None:
    assert error_label(text) == label


def test_a_callee_s_status_is_its_error_type() -> None:
    watched = Watched()
    watched.observer.attempt(calling(), URL).end(Remote("sold out", status=409))
    (labels,) = watched.points("http.client.request.duration")
    assert dict(labels)["error.type"] == "409"
    assert dict(labels)["http.response.status_code"] == 409


def test_the_same_error_is_counted_under_the_same_label() -> None:
    watched = Watched()
    for _ in range(3):
        watched.observer.measure(serving(), 0.1, ValueError("no"))
    (labels,) = watched.points("http.server.request.duration")
    assert dict(labels)["error.type"] == "ValueError"
