"""Traces of systems that never heard of callcast: read, put together, and measured."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trace_parts import Trace, jaeger, order, otlp, zipkin

from callcast.advise.model import Edge, Span, System, Verb
from callcast.advise.traces import gathering, measuring, parts
from callcast.advise.traces.measuring import Measuring, measured
from callcast.advise.traces.parts import Cut
from callcast.advise.traces.reading import Reading
from callcast.core.errors import Misuse

Writer = Callable[[Iterable[Span]], bytes]
FORMATS = [otlp, jaeger, zipkin]
STOCK = Edge("shop", "stock", "GET /stock")
BANK = Edge("shop", "bank", "GET /charge")
MAIL, PARCELS = Edge("shop", "mail", "placed"), Edge("shop", "parcels", "placed")


def chunks(whole: bytes, size: int = 1000) -> Iterator[bytes]:
    return (whole[at : at + size] for at in range(0, len(whole), size))


def read(whole: bytes, size: int = 1000) -> tuple[System, Reading]:
    reading = Reading(chunks(whole, size), "traces.json")
    return measured(reading, ["traces.json"]), reading


def orders(count: int = 20) -> list[Span]:
    return [span for number in range(count) for span in order(number, fails=number % 10 == 0)]


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("size", [1, 97, 1_000_000])
def test_each_format_gives_the_system(write: Writer, size: int) -> None:
    system, reading = read(write(orders()), size)
    assert {edge: about.verb for edge, about in system.interactions.items()} == {
        STOCK: Verb.CALL,
        BANK: Verb.CALL,
        Edge("bank", "postgresql", "SELECT"): Verb.CALL,
        MAIL: Verb.PUBLISH,
        PARCELS: Verb.PUBLISH,
    }
    bank = system.interactions[BANK].measured
    assert bank is not None
    assert (bank.count, bank.errors, bank.attempts, bank.traces) == (20, 2, 20, 20)
    assert bank.latency.quantile(0.5) == pytest.approx(0.05, rel=0.02)
    assert bank.work.quantile(0.5) == pytest.approx(0.048, rel=0.02)
    assert bank.rate == pytest.approx(20 / 19.2, rel=0.01)
    assert 0.5 < bank.peak_rate <= 1.0
    mail = system.interactions[MAIL].measured
    assert mail is not None
    assert mail.queue_time.quantile(0.5) == pytest.approx(0.046, rel=0.03)
    page = system.handlers["shop", "POST /orders"]
    assert page.is_entry
    assert page.availability == 1.0  # it failed only where the bank did
    assert page.own.quantile(0.5) == pytest.approx(0.14, rel=0.05)
    assert [(step.edge, step.group) for step in page.steps[:2]] == [(STOCK, 0), (BANK, 0)]
    assert system.handlers["bank", "GET /charge"].availability == 0.9
    assert not system.handlers["mail", "placed"].is_entry
    assert (system.traces, system.sources) == (20, ("traces.json",))
    assert system.dropped == {}
    assert reading.dropped == {}


def test_lines_of_a_collector_are_read_too() -> None:
    lines = b"\n".join(otlp(order(number)) for number in range(3))
    assert read(lines)[0].traces == 3


def test_older_names_and_numbers_and_texts_are_understood() -> None:
    span = {
        "traceId": "AB", "spanId": "CD", "name": "x", "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": 1_000_000_000, "endTimeUnixNano": "2000000000",
        "attributes": [
            {"key": "a", "value": {"boolValue": False}}, {"key": "b", "value": {"doubleValue": 0.5}},
            {"key": "c", "value": {"arrayValue": {}}}, {"key": "d", "value": {"intValue": 7}},
        ],
        "status": {"code": "STATUS_CODE_ERROR"},
    }  # fmt: skip
    old = {
        "resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [span, {**span, "kind": 9}]}]}]
    }
    [one, other] = Reading([json.dumps(old).encode()], "old")
    assert (one.trace_id, one.service, one.kind, one.took, one.is_error) == (
        "ab", "unknown", "server", 1.0, True,
    )  # fmt: skip
    assert one.attributes == {"a": False, "b": 0.5, "d": 7}
    assert other.kind == "internal"


def test_a_server_that_shares_its_clients_span_is_its_child() -> None:
    both = {"traceId": "1", "id": "2", "timestamp": 5, "duration": 3}
    document = [
        {**both, "kind": "CLIENT", "localEndpoint": {"serviceName": "a"},
         "remoteEndpoint": {"serviceName": "b"}},
        {**both, "kind": "SERVER", "shared": True, "localEndpoint": {"serviceName": "b"}},
    ]  # fmt: skip
    client, server = Reading([json.dumps(document).encode()], "z")
    assert (server.span_id, server.parent_id) == ("2-server", "2")
    assert client.attributes == {"peer.service": "b"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "no span in it"),
        (b"hello", "no span in it"),
        (b'[{"a": 1}]', "1 x neither OTLP nor Jaeger nor Zipkin"),
        (b'[{"scopeSpans": 7}]', "1 x a resource of OTLP that is not as it should be"),
        (b'[{"spans": 7, "processes": {}}]', "1 x a trace of Jaeger that is not"),
        (b'[{"traceId": 7, "id": "2"}]', "1 x a span that is not as it should be"),
        (b'[{"traceId": "", "id": "2", "timestamp": 1}]', "1 x a span without an id"),
        (b'[{"traceId": "1", "id": "2", "timestamp": 1', "1 x the end: the document is cut off"),
        (b'[{"traceId": "1", "id": "', "1 x the end: the document is cut off"),
    ],
)
def test_what_has_no_span_is_said_with_why_and_what_is_understood(
    document: bytes, said: str
) -> None:
    with pytest.raises(Misuse, match=said) as caught:
        list(Reading([document], "x.json"))
    assert "x.json: " in str(caught.value)
    assert "OTLP as JSON" in str(caught.value)


def test_a_bad_span_takes_no_other_along() -> None:
    whole = json.loads(otlp(order(1)))
    whole["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["startTimeUnixNano"] = "x"
    system, reading = read(json.dumps(whole).encode())
    assert reading.dropped == {"a span that is not as it should be": 1}
    assert BANK in system.interactions


def test_a_part_too_large_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_MAX_BYTES", 500)
    large = {"traceId": "1", "id": "1", "timestamp": 1, "tags": {"x": "y" * 2000, "z": '"}{'}}
    small = {"traceId": "1", "id": "2", "timestamp": 1}
    reading = Reading(chunks(json.dumps([small, large, small]).encode(), 100), "z")
    assert [span.span_id for span in reading] == ["2", "2"]
    assert reading.dropped == {"a part larger than 64 MiB": 1}


def test_memory_is_bounded_by_the_largest_part() -> None:
    one = zipkin(order(1))[1:-1]

    def endless() -> Iterator[bytes]:
        yield b"["
        for _ in range(3_000):
            yield one + b","
        yield one + b"]"

    cut = Cut(endless())
    most = 0
    for _ in cut:
        most = max(most, len(cut._held))
    assert most < 3 * len(one)


def test_traces_are_put_together_wherever_their_spans_are() -> None:
    spans = orders(5)
    random.Random(1).shuffle(spans)
    dropped: Counter[str] = Counter()
    found = list(gathering.traces([*spans, *spans], dropped))
    assert sorted(map(len, found)) == [9] * 5
    assert dropped == {"a span that was there already": 45}


def test_too_many_open_traces_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "ENDED_MAX", 1)
    first, *rest = order(1)
    dropped: Counter[str] = Counter()
    spans = [first, *order(2), *order(3), *rest, *order(4)]
    found = list(gathering.traces(spans, dropped, open_max=9))
    assert sum(map(len, found)) == 36
    assert dropped == {} or list(dropped) == [
        "the rest of a trace that came much later: taken apart from it"
    ]
    late: Counter[str] = Counter()
    list(gathering.traces([first, *order(2), *rest], late, open_max=9))
    assert late == {"the rest of a trace that came much later: taken apart from it": 1}


def test_attempts_of_one_call_are_one_call() -> None:
    trace = Trace()
    page = trace.span("page", "shop", "server", took=1.0)
    trace.call(page, "bank", "/x", at=0.1, took=0.1, error=True)
    trace.call(page, "bank", "/x", at=0.3, took=0.1)
    trace.call(page, "bank", "/x", at=0.6, took=0.1)
    trace.span("GET", "shop", "client", under=page, at=0.8, http__request__resend_count=1,
               peer__service="bank", http__request__method="GET", url__template="/x")  # fmt: skip
    about = measured(trace.spans).interactions[Edge("shop", "bank", "GET /x")].measured
    assert about is not None
    assert (about.count, about.attempts, about.attempt_errors, about.errors) == (2, 4, 1, 0)
    assert about.calls_per_trace_max == 2


def test_a_call_whose_callee_was_not_seen_is_of_whom_its_span_names() -> None:
    trace = Trace()
    trace.span("GET", "job", "client", rpc__method="Get", rpc__service="p.S", server__address="db1")
    trace.span("mystery", "job", "client")
    trace.span("y", "job", "client", rpc__method="Only")
    system = measured(trace.spans)
    assert set(system.interactions) == {
        Edge("job", "db1", "p.S/Get"),
        Edge("job", "unknown", "mystery"),
        Edge("job", "unknown", "Only"),
    }
    assert all(handler.is_entry for handler in system.handlers.values())


def message(trace: Trace, service: str, under: Span | None, at: float, **more: str | int) -> Span:
    return trace.span("t publish", service, "producer", under=under, at=at, took=0.001,
                      messaging__destination__name=str(more.pop("to", "t")),
                      messaging__operation__type="send", **more)  # fmt: skip


def handled(trace: Trace, service: str, under: Span | None, at: float, **more: object) -> Span:
    links = more.pop("links", ())
    return trace.span("t process", service, "consumer", under=under, at=at,
                      links=links,  # type: ignore[arg-type]
                      messaging__destination__name=str(more.pop("to", "t")),
                      messaging__operation__type="process", **more)  # type: ignore[arg-type]  # fmt: skip


def test_a_queue_is_found_by_links_between_traces_in_either_order() -> None:
    late, early = Trace(1), Trace(2)
    sent = message(early, "a", early.span("job", "a"), 0.0)
    handled(late, "b", None, 5.0, links=((sent.trace_id, sent.span_id),))
    handled(late, "c", None, 5.0)
    system = measured([*late.spans, *early.spans])
    assert list(system.interactions) == [Edge("a", "b", "t")]
    assert system.interactions[Edge("a", "b", "t")].verb is Verb.CAST
    assert system.dropped == {"a message whose publishing was not seen": 1}


def test_messages_that_nobody_can_place_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "HELD_MAX", 1)
    monkeypatch.setattr(measuring, "PUBLISHED_MAX", 1)
    trace = Trace()
    first, _second = message(trace, "a", None, 0.0), message(trace, "a", None, 0.0)
    for service in "bcd":
        handled(trace, service, first, 1.0)
    assert measured(trace.spans).dropped == {"a message whose publishing was not seen": 3}


def test_an_outbox_and_a_second_round_are_seen() -> None:
    trace = Trace()
    job = trace.span("job", "a", "server")
    created = message(trace, "a", job, 0.0, messaging__operation__name="create")
    left = message(trace, "a", created, 0.2)
    handled(trace, "b", left, 0.5, outcome="later")
    handled(trace, "b", left, 0.9, outcome="dead", callcast__delivery__round=1)
    about = measured(trace.spans).interactions[Edge("a", "b", "t")]
    assert about.terms.has_outbox
    assert about.measured is not None
    assert (about.measured.count, about.measured.attempts, about.measured.errors) == (1, 2, 1)


def test_an_answer_over_a_queue_is_a_request() -> None:
    trace = Trace()
    page = trace.span("page", "web", "server", took=1.0)
    asked = message(trace, "web", page, 0.1)
    at_work = handled(trace, "prices", asked, 0.2)
    answer = message(trace, "prices", at_work, 0.3, to="answers")
    handled(trace, "web", answer, 0.4, to="answers")
    late = message(trace, "prices", at_work, 0.3, to="late")
    handled(trace, "web", late, 4.0, to="late")
    elsewhere = message(trace, "prices", at_work, 0.3, to="else")
    handled(trace, "other", elsewhere, 0.4, to="else")
    system = measured(trace.spans)
    assert {str(edge): about.verb for edge, about in system.interactions.items()} == {
        "web->prices:t": Verb.REQUEST,
        "prices->web:late": Verb.CAST,
        "prices->other:else": Verb.CAST,
    }
    latency = system.interactions[Edge("web", "prices", "t")].measured
    assert latency is not None
    assert latency.latency.quantile(0.5) == pytest.approx(0.299, rel=0.03)


def test_fetching_and_settling_are_no_handling() -> None:
    trace = Trace()
    sent = message(trace, "a", None, 0.0)
    trace.span("receive t", "b", "consumer", under=sent, messaging__operation="receive",
               messaging__destination="t")  # fmt: skip
    trace.span("settle t", "b", "client", under=sent, messaging__destination__name="t")
    assert measured(trace.spans).interactions == {}


def test_broken_trees_are_mended_and_counted() -> None:
    trace = Trace()
    top = trace.span("page", "shop", "server", at=1.0)
    ring = trace.span("a", "shop", under=top)
    spans = [
        replace(top, parent_id=ring.span_id),
        ring,
        replace(trace.span("b", "shop"), parent_id="feed"),
        replace(trace.span("c", "shop"), parent_id=f"{4:016x}"),
    ]
    early = trace.span("d", "other", under=ring, at=-5.0)
    assert measured([*spans, early]).dropped == {
        "a parent that is missing: its child counts as a root": 1,
        "a span above itself: it counts as a root": 2,
        "a clock that is behind: times between services are less sure": 1,
    }


def test_an_operation_is_called_as_callcast_calls_it() -> None:
    trace = Trace()
    page = trace.span("POST /orders", "orders", "server", callcast__operation="orders.checkout")
    trace.span("POST", "orders", "client", under=page, callcast__operation="stock.reserve",
               callcast__peer="stock")  # fmt: skip
    system = measured(trace.spans)
    assert list(system.interactions) == [Edge("orders", "stock", "stock.reserve")]
    assert ("orders", "orders.checkout") in system.handlers


def test_of_calls_side_by_side_the_time_is_waited_once() -> None:
    trace = Trace()
    page = trace.span("page", "shop", "server", took=1.0)
    trace.call(page, "b", "/b", at=0.1, took=0.5)
    trace.call(page, "c", "/c", at=0.2, took=0.1)
    trace.call(page, "d", "/d", at=0.7, took=0.1)
    system = measured(trace.spans)
    handler = system.handlers["shop", "page"]
    assert handler.own.quantile(0.5) == pytest.approx(0.4, rel=0.02)
    assert [step.group for step in handler.steps] == [0, 0, 1]


def test_nothing_at_all_is_an_empty_system() -> None:
    assert Measuring().system().interactions == {}


@settings(max_examples=60)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4)), max_size=6),
    st.integers(1, 5_000),
)
def test_whatever_is_damaged_nothing_but_misuse_comes_of_it(
    write: Writer, damage: list[tuple[int, bytes]], size: int
) -> None:
    whole = bytearray(write(orders(2)))
    for at, what in damage:
        place = at % len(whole)
        whole[place : place + len(what)] = what
    try:
        system, reading = read(bytes(whole), size)
    except Misuse:
        pass
    else:
        assert system.interactions or system.dropped or reading.dropped or system.handlers


def test_a_whole_call_of_callcast_has_its_attempts_below() -> None:
    trace = Trace()
    page = trace.span("page", "orders", "server", took=1.0, callcast__operation="orders.checkout")
    whole = trace.span("call bank.charge", "orders", under=page, at=0.1, took=0.3,
                       callcast__operation="bank.charge", callcast__peer="bank")  # fmt: skip
    for number in range(2):
        attempt = trace.span("POST", "orders", "client", under=whole, at=0.1 + number * 0.1,
                             took=0.05, error=not number)  # fmt: skip
        trace.span("POST /charge", "bank", "server", under=attempt, at=0.11 + number * 0.1)
    [(edge, about)] = measured(trace.spans).interactions.items()
    assert edge == Edge("orders", "bank", "bank.charge")
    assert about.measured is not None
    assert (about.measured.count, about.measured.attempts, about.measured.errors) == (1, 2, 0)


def test_an_answer_to_callcasts_own_queue_is_a_request() -> None:
    trace = Trace()
    page = trace.span("page", "web", "server", took=1.0)
    asked = message(trace, "web", page, 0.1)
    at_work = handled(trace, "prices", asked, 0.2)
    answer = message(trace, "prices", at_work, 0.3, to="callcast.replies.x")
    handled(trace, "host", answer, 0.4, to="callcast.replies.x")
    system = measured(trace.spans)
    assert {str(edge): about.verb for edge, about in system.interactions.items()} == {
        "web->prices:t": Verb.REQUEST
    }
