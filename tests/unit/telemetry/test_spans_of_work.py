"""Spans are called and joined as the conventions say."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry import baggage, trace
from opentelemetry.trace import SpanKind, StatusCode
from telemetry_kit import (
    SPAN,
    STOCK,
    TRACE,
    TRACEPARENT,
    StillClock,
    Watched,
    calling,
    consuming,
    context,
    message,
    publishing,
    serving,
)

from callcast.core.context import AMBIENT
from callcast.core.errors import NotSent, Refused, Remote, Unanswered, Undecodable, WrongRequest
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.core.work import Kind, Work
from callcast.telemetry.otel import LOOK_EVERY, NOTHING, OtelObserver

URL = "http://users.example:8080/users/7"


def test_a_call_is_one_internal_span_around_a_client_span_for_each_attempt() -> None:
    watched = Watched()
    observer = watched.observer
    call = observer.begin(calling())
    observer.attempt(calling(), URL).end(Unanswered("no answer"))
    observer.attempt(calling(attempt=2), URL).end(status=200)
    call.end()

    first, second, whole = watched.spans
    assert whole.name == "call users.get"
    assert whole.kind is SpanKind.INTERNAL
    assert whole.status.status_code is StatusCode.UNSET
    assert whole.attributes == {"callcast.operation": "users.get", "callcast.peer": "users"}
    for attempt in (first, second):
        assert attempt.name == "GET /users/{user_id}"
        assert attempt.kind is SpanKind.CLIENT
        assert attempt.parent is not None
        assert attempt.parent.span_id == whole.context.span_id
        assert attempt.attributes is not None
        assert attempt.attributes["http.request.method"] == "GET"
        assert attempt.attributes["server.address"] == "users.example"
        assert attempt.attributes["server.port"] == 8080
        assert attempt.attributes["url.full"] == URL
    assert first.attributes is not None
    assert "http.request.resend_count" not in first.attributes
    assert first.attributes["error.type"] == "callcast.core.errors.Unanswered"
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes is not None
    assert second.attributes["http.request.resend_count"] == 1
    assert second.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize(
    ("url", "full", "port"),
    [
        ("https://u:pw@users.example/users/7?token=s3cret", "https://users.example/users/7", 443),
        ("http://users.example/callcast/users.get", "http://users.example/callcast/users.get", 80),
    ],
)
def test_the_url_of_an_attempt_has_neither_credentials_nor_query(
    url: str, full: str, port: int
) -> None:
    watched = Watched()
    watched.observer.attempt(calling(), url).end()
    attributes = watched.span.attributes
    assert attributes is not None
    assert attributes["url.full"] == full
    assert attributes["server.port"] == port


def test_a_status_that_the_callee_answered_is_the_type_of_the_error() -> None:
    watched = Watched()
    watched.observer.attempt(calling(), URL).end(Remote("no such user", status=404))
    assert watched.span.status.status_code is StatusCode.ERROR
    assert watched.span.attributes is not None
    assert watched.span.attributes["error.type"] == "404"
    assert watched.span.attributes["http.response.status_code"] == 404


def test_a_cancelled_call_is_no_error() -> None:
    watched = Watched()
    watched.observer.begin(calling()).end(asyncio.CancelledError())
    assert watched.span.status.status_code is StatusCode.UNSET


def test_a_served_call_goes_on_with_the_trace_of_its_caller() -> None:
    watched = Watched()
    watched.observer.begin(serving(traceparent=TRACEPARENT)).end()
    span = watched.span
    assert span.name == "GET /users/{user_id}"
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert span.parent.is_remote
    assert trace.format_trace_id(span.context.trace_id) == TRACE
    assert trace.format_span_id(span.parent.span_id) == SPAN
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/users/{user_id}",
        "url.scheme": "http",
        "url.path": "/users/{user_id}",
        "callcast.operation": "users.get",
        "http.response.status_code": 200,
    }


def test_a_served_call_goes_under_the_span_of_an_instrumented_framework() -> None:
    watched = Watched()
    tracer = watched.tracers.get_tracer("framework")
    came = trace.propagation.set_span_in_context(
        trace.NonRecordingSpan(
            trace.SpanContext(
                int(TRACE, 16), int(SPAN, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
            )
        )
    )
    with tracer.start_as_current_span("GET", came) as outer:
        watched.observer.begin(serving(traceparent=TRACEPARENT)).end()
    ours, _ = watched.spans
    assert ours.parent is not None
    assert ours.parent.span_id == outer.get_span_context().span_id


def test_a_served_call_leaves_a_current_span_of_another_trace() -> None:
    watched = Watched()
    with watched.tracers.get_tracer("start-up").start_as_current_span("start"):
        watched.observer.begin(serving(traceparent=TRACEPARENT)).end()
    ours, _ = watched.spans
    assert trace.format_trace_id(ours.context.trace_id) == TRACE


def test_a_call_within_the_process_is_served_under_the_span_of_its_caller() -> None:
    watched = Watched()
    call = watched.observer.begin(calling())
    watched.observer.begin(serving()).end()
    call.end()
    served, called = watched.spans
    assert served.parent is not None
    assert served.parent.span_id == called.context.span_id


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Refused("out of stock", status=409), StatusCode.UNSET, 409),
        (WrongRequest("not a number", field="$.n"), StatusCode.UNSET, 400),
        (Undecodable("some file"), StatusCode.ERROR, 500),
        (ValueError("password=hunter2"), StatusCode.ERROR, 500),
        (Remote("their fault", status=503), StatusCode.ERROR, 502),
        (Remote("their no", status=404), StatusCode.ERROR, 502),
        (asyncio.CancelledError(), StatusCode.UNSET, None),
        (None, StatusCode.UNSET, 200),
    ],
)
def test_only_a_server_s_own_errors_mark_its_span(
    error: BaseException | None, code: StatusCode, status: int | None
) -> None:
    watched = Watched()
    watched.observer.begin(serving()).end(error)
    assert watched.span.status.status_code is code
    assert watched.span.attributes is not None
    assert watched.span.attributes.get("http.response.status_code") == status
    assert "hunter2" not in watched.span.to_json()


def test_publishing_is_a_producer_span_and_its_carrier_names_it() -> None:
    watched = Watched()
    work = publishing(message=message())
    span = watched.observer.begin(work)
    carrier = watched.observer.carrier(work)
    span.end()
    made = watched.span
    assert made.name == "publish orders.placed"
    assert made.kind is SpanKind.PRODUCER
    assert carrier["traceparent"].split("-")[2] == trace.format_span_id(made.context.span_id)
    assert made.attributes == {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.system": "sqlite",
        "messaging.destination.name": "orders.placed",
        "messaging.message.id": "m-1",
        "messaging.message.conversation_id": "c-1",
    }


def test_what_leaves_an_outbox_goes_on_with_the_trace_that_it_was_created_in() -> None:
    watched = Watched()
    work = publishing(message=message(), deadline=None)
    span = watched.observer.begin(work)
    carrier = watched.observer.carrier(work)
    span.end()
    later = publishing(message=message(traceparent=carrier["traceparent"]))
    span = watched.observer.begin(later)
    carrier = watched.observer.carrier(later)
    span.end()
    created, sent = watched.spans
    assert created.name == "create orders.placed"
    assert created.kind is sent.kind is SpanKind.PRODUCER
    assert sent.name == "publish orders.placed"
    assert sent.parent is not None
    assert sent.parent.span_id == created.context.span_id
    assert carrier["traceparent"].split("-")[2] == trace.format_span_id(sent.context.span_id)


def test_publishing_without_a_message_yet_is_named_by_its_contract() -> None:
    watched = Watched()
    watched.observer.begin(publishing()).end()
    watched.observer.begin(Work(Kind.PUBLISH, "inventory.stock", "m-2", STOCK, deadline=1.0)).end()
    watched.observer.begin(Work(Kind.PUBLISH, "guarded", "m-3", deadline=1.0)).end()
    assert [s.name for s in watched.spans] == [
        "publish orders.placed",
        "publish inventory.stock",
        "publish guarded",
    ]


def test_handling_is_a_child_of_the_publishing_and_links_to_it() -> None:
    watched = Watched()
    with watched.tracers.get_tracer("start-up").start_as_current_span("start"):
        watched.observer.begin(consuming()).end()
    span, _ = watched.spans
    assert span.name == "process orders.placed"
    assert span.kind is SpanKind.CONSUMER
    assert trace.format_trace_id(span.context.trace_id) == TRACE
    assert span.parent is not None
    assert trace.format_span_id(span.parent.span_id) == SPAN
    (link,) = span.links
    assert trace.format_span_id(link.context.span_id) == SPAN
    assert span.attributes is not None
    assert span.attributes["messaging.consumer.group.name"] == "mail"
    assert span.attributes["messaging.operation.type"] == "process"
    assert span.attributes["callcast.delivery.round"] == 2
    assert "secret" not in span.to_json()


def test_handling_a_redriven_message_starts_a_trace_that_links_to_the_original() -> None:
    watched = Watched()
    redriven = message(traceparent=TRACEPARENT, headers={"callcast-redrive-count": "1"})
    watched.observer.begin(consuming(redriven)).end()
    assert watched.span.parent is None
    assert trace.format_trace_id(watched.span.context.trace_id) != TRACE
    (link,) = watched.span.links
    assert trace.format_trace_id(link.context.trace_id) == TRACE


def test_handling_joins_by_link_alone_when_told_to() -> None:
    watched = Watched(join="link")
    watched.observer.begin(consuming()).end()
    assert watched.span.parent is None
    assert len(watched.span.links) == 1


def test_handling_a_message_without_a_trace_starts_one() -> None:
    watched = Watched()
    watched.observer.begin(consuming(message())).end()
    assert watched.span.parent is None
    assert watched.span.links == ()


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Later(10, "Late: o-1", {"callcast-error-type": "shop.Late"}), "shop.Late"),
        (Dead("expired"), "expired"),
        (Dead("no such type 'x'"), "_OTHER"),
    ],
)
def test_a_message_that_was_not_handled_marks_its_span(outcome: Later | Dead, kind: str) -> None:
    watched = Watched()
    watched.observer.begin(consuming()).end(outcome=outcome)
    assert watched.span.status.status_code is StatusCode.ERROR
    assert watched.span.attributes is not None
    assert watched.span.attributes["error.type"] == kind
    assert watched.span.attributes["outcome"] == type(outcome).__name__.lower()


def test_a_message_that_was_handled_or_given_back_does_not_mark_its_span() -> None:
    watched = Watched()
    watched.observer.begin(consuming()).end(outcome=DONE)
    watched.observer.begin(consuming()).end(outcome=Release(1.0))
    assert [s.status.status_code for s in watched.spans] == [StatusCode.UNSET, StatusCode.UNSET]


def test_a_message_without_a_correlation_id_has_no_conversation() -> None:
    watched = Watched()
    watched.observer.begin(consuming(message(correlation_id=None))).end()
    assert watched.span.attributes is not None
    assert "messaging.message.conversation_id" not in watched.span.attributes


def test_spans_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    observer = OtelObserver(StillClock(), tracers=watched.tracers)
    assert observer.is_tracing
    observer.attempt(calling(), URL).end()
    observer.measure(calling(), 0.1, None)
    assert len(watched.spans) == 1


def test_metrics_alone_are_enough() -> None:
    watched = Watched()
    observer = OtelObserver(StillClock(), meters=watched.meters)
    assert observer.is_tracing
    span = observer.begin(serving(traceparent=TRACEPARENT))
    carrier = observer.carrier(serving())
    span.end()
    observer.measure(serving(), 0.1, None)
    assert carrier["traceparent"] == TRACEPARENT
    assert list(watched.points("http.server.request.duration").values()) == [0.1]


def test_baggage_of_a_message_is_there_while_it_is_handled() -> None:
    watched = Watched()
    work = consuming(message(traceparent=TRACEPARENT, headers={"baggage": "tenant=acme"}))
    span = watched.observer.begin(work)
    inside = baggage.get_baggage("tenant")
    carrier = watched.observer.carrier(work)
    span.end()
    assert inside == "acme"
    assert carrier["baggage"] == "tenant=acme"
    assert baggage.get_baggage("tenant") is None


def test_a_guarded_function_and_an_unbound_attempt_have_names_too() -> None:
    watched = Watched()
    watched.observer.begin(Work(Kind.CALL, "shop.price")).end()
    watched.observer.attempt(Work(Kind.CALL, "shop.price"), URL).end()
    assert [s.name for s in watched.spans] == ["call shop.price", "POST shop.price"]


def test_nothing_is_started_while_nobody_records() -> None:
    observer = OtelObserver(StillClock())
    assert not observer.is_tracing
    assert observer.attempt(calling(), URL) is NOTHING
    NOTHING.end(NotSent("no"))
    assert observer.carrier(calling()) == {}


def test_what_came_in_is_passed_on_as_it_is_while_nobody_records() -> None:
    observer = OtelObserver(StillClock())
    headers = {"traceparent": "99-odd-but-theirs", "tracestate": "a=b", "accept": "x"}
    work = serving(**headers)
    assert observer.carrier(work) == {"traceparent": "99-odd-but-theirs", "tracestate": "a=b"}


def test_a_message_goes_on_with_what_its_handler_was_given_while_nobody_records() -> None:
    observer = OtelObserver(StillClock())
    token = AMBIENT.set(context(traceparent=TRACEPARENT))
    try:
        assert observer.carrier(publishing()) == {"traceparent": TRACEPARENT}
    finally:
        AMBIENT.reset(token)


def test_an_sdk_that_comes_late_is_found_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StillClock()
    watched = Watched()
    observer = OtelObserver(clock)
    assert not observer.is_tracing
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: watched.tracers)
    assert not observer.is_tracing
    clock.time += LOOK_EVERY
    assert observer.is_tracing
    observer.begin(publishing()).end()
    observer.begin(serving()).end()
    observer.attempt(calling(), URL).end()
    observer.measure(publishing(), 0.1, None)
    assert len(watched.spans) == 3


def test_success_is_told_when_an_sdk_counts_it_or_the_log_wants_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = StillClock()
    observer = OtelObserver(clock)
    caplog.set_level(logging.INFO, "callcast")
    assert not observer.hears_success
    caplog.set_level(logging.DEBUG, "callcast")
    clock.time += LOOK_EVERY
    assert observer.hears_success
    caplog.set_level(logging.INFO, "callcast")
    assert Watched().observer.hears_success
