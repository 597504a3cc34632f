"""Traces as they should not be: nothing of it stops the adviser, and all of it is bounded."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trace_parts import Trace, jaeger, order, otlp, zipkin

from callcast.advise.model import Edge, Span, Verb
from callcast.advise.traces import gathering, measuring, stepping
from callcast.advise.traces.measuring import Measuring, measured
from callcast.advise.traces.parts import DEEP_MAX, Cut
from callcast.advise.traces.reading import Reading
from callcast.core.errors import Misuse

Writer = Callable[[Iterable[Span]], bytes]
FORMATS = [otlp, jaeger, zipkin]


def spans_of(document: object) -> list[Span]:
    return list(Reading([json.dumps(document).encode()], "x"))


def one_otlp(**more: object) -> Span:
    span = {
        "traceId": "0ab", "spanId": "0cd", "name": "x", "kind": 3,
        "startTimeUnixNano": "1000", "endTimeUnixNano": "2000", **more,
    }  # fmt: skip
    [found] = spans_of({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    return found


@pytest.mark.parametrize("name", ["parentSpanId", "kind", "attributes", "status", "links"])
def test_nothing_where_otlp_may_have_something_is_nothing(name: str) -> None:
    assert one_otlp(**{name: None}).trace_id == "ab"


def test_a_damaged_attribute_takes_no_other_along() -> None:
    values: list[object] = [
        {"intValue": "many"}, {"intValue": "9" * 5000}, {"doubleValue": "NaN"}, {"boolValue": [1]},
        {"intValue": "-7"}, None, {"stringValue": 5},
    ]  # fmt: skip
    attributes = [{"key": str(at), "value": value} for at, value in enumerate(values)]
    found = one_otlp(attributes=attributes).attributes
    assert found["4"] == -7
    assert found["0"] == "many"
    assert "3" not in found
    assert "5" not in found


def test_ids_are_the_same_in_any_spelling() -> None:
    whole = one_otlp(traceId="q83vASNFZ4mrze8BI0VniQ==", spanId="AAAAASNFZ4k=")
    assert (whole.trace_id, whole.span_id) == ("abcdef0123456789abcdef0123456789", "123456789")
    assert one_otlp(spanId="not*base64*=").span_id == "not*base64*="
    assert one_otlp(parentSpanId="0000000000000000").parent_id == ""


def test_jaeger_and_zipkin_may_leave_out_what_they_do_not_know() -> None:
    one = {"traceID": "1", "spanID": "2", "operationName": "x", "startTime": 5.5, "duration": 1.0,
           "references": None, "tags": None, "processID": None, "parentSpanID": "03"}  # fmt: skip
    tags = [{"key": "a", "type": "binary", "value": [1]}, {"key": "b", "value": 1}]
    two = {**one, "spanID": "4", "tags": tags}
    first, second = spans_of({"data": [{"traceID": "1", "spans": [one, two], "processes": None}]})
    assert (first.parent_id, first.service) == ("3", "unknown")
    assert second.attributes == {"b": 1}
    [third] = spans_of(
        [{"traceId": "1", "id": "2", "timestamp": 5, "duration": None, "name": None, "kind": None,
          "parentId": None, "localEndpoint": None, "remoteEndpoint": None, "tags": None}]
    )  # fmt: skip
    assert (third.service, third.name, third.took) == ("unknown", "", 0.0)
    with pytest.raises(Misuse, match="no span"):
        spans_of({"data": [{"traceID": "1", "spans": None, "processes": None}]})
    with pytest.raises(Misuse, match="no span"):
        spans_of({"resourceSpans": [{"scopeSpans": [{"spans": None}], "resource": None}]})


@pytest.mark.parametrize("at", ["0", "-5", "9" * 25])
def test_a_time_that_cannot_be_is_no_time(at: str) -> None:
    with pytest.raises(Misuse, match="1 x a span at a time that cannot be"):
        one_otlp(startTimeUnixNano=at, endTimeUnixNano=at)


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"\x1f\x8b\x08\x00", "unpack it with gunzip first"),
        (b"\x28\xb5\x2f\xfd\x00", "unpack it with zstd -d first"),
        (b"\n\xb6\x01\n\x1f\n\x1d\n\x0cservice.name\x12\r\n\x0bcart", "OTLP as protobuf"),
    ],
)
def test_what_is_no_text_is_told_what_to_do_with_it(begin: bytes, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        list(Reading([begin[:1], begin[1:]], "x"))


def test_text_after_an_empty_line_is_text() -> None:
    with pytest.raises(Misuse) as caught:
        list(Reading([b"\n\tno spans here"], "x"))
    assert "protobuf:" not in str(caught.value)


def test_what_is_nested_without_end_is_counted() -> None:
    deep = (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}]}]}"
    )
    with pytest.raises(Misuse, match="a resource of OTLP that is not as it should be"):
        list(Reading([deep], "x"))
    cut = Cut([b"[" * 100_000])
    assert list(cut) == []
    assert len(cut._above) == DEEP_MAX


def test_numbers_that_are_none_count_as_none() -> None:
    trace = Trace()
    page = trace.span("page", "a", "server")
    for _ in range(2):
        trace.span("GET", "a", "client", under=page, http__request__resend_count="often")
    sent = trace.span("t", "a", "producer", under=page, messaging__destination__name="t")
    trace.span("t", "b", "consumer", under=sent, messaging__destination__name="t",
               callcast__delivery__round="second")  # fmt: skip
    found = measured(trace.spans).interactions
    calls, casts = found[Edge("a", "unknown", "GET")], found[Edge("a", "b", "t")]
    assert calls.measured is not None
    assert casts.measured is not None
    assert (calls.measured.count, casts.measured.count) == (2, 1)


def test_a_chain_of_any_depth_and_a_run_of_many_calls_take_linear_time() -> None:
    trace = Trace()
    above: Span | None = None
    for _ in range(3_000):
        above = trace.span("deep", "a", under=above)
    wide = trace.span("job", "b", "server", took=50.0)
    for number in range(3_000):
        trace.span(f"q{number % 7}", "b", "client", under=wide, took=40.0, peer__service="db")
    system = measured(trace.spans)
    assert system.dropped == {}
    assert len(system.handlers["b", "job"].steps) == 7
    assert {step.group for step in system.handlers["b", "job"].steps} == {0}


def test_of_a_ring_of_parents_the_first_span_is_the_root() -> None:
    trace = Trace()
    one = trace.span("one", "a", "server", at=3.0)
    two = trace.span("two", "b", "server", under=one, at=0.5)
    three = trace.span("three", "c", under=two, at=2.0)
    system = measured([replace(one, parent_id=three.span_id), two, three])
    assert system.dropped == {"a span above itself: it counts as a root": 1}
    assert system.handlers["b", "two"].is_entry
    assert not system.handlers["a", "one"].is_entry


def test_names_without_end_are_told_apart_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "EDGES_MAX", 3)
    monkeypatch.setattr(stepping, "HANDLERS_MAX", 2)
    trace = Trace()
    for number in range(3):
        page = trace.span(f"/page-{number}", "a", "server")
        sent = trace.span("p", "a", "producer", under=page, messaging__destination__name="t")
    trace.span("c", "b", "consumer", under=sent, messaging__destination__name="t")
    for number in range(5):
        trace.span(f"get {number}", "a", "client", peer__service="b")
    system = measured(trace.spans)
    assert len(system.interactions) == 3
    assert system.dropped == {"of an interaction beyond the 3 that are told apart": 3}
    assert len(system.handlers) == 2


def test_an_id_in_a_path_makes_no_interaction_of_its_own() -> None:
    trace = Trace()
    paths = [
        "/users/1",
        "/users/22?a=3",
        "/users/8f14e45f-ceea-467f-a8d3-1c2b3d4e5f60",
        "/users/me",
    ]
    for path in paths:
        trace.span("GET", "a", "client", peer__service="b", http__method="GET", http__target=path)
    names = {edge.name for edge in measured(trace.spans).interactions}
    assert names == {"GET /users/{id}", "GET /users/me"}


def test_queues_of_one_answer_each_are_one() -> None:
    trace = Trace()
    for number in range(3):
        sent = trace.span("p", "a", "producer", messaging__destination__name=f"amq.gen-{number}",
                          messaging__destination__temporary="true")  # fmt: skip
        trace.span("c", "b", "consumer", under=sent)
    assert list(measured(trace.spans).interactions) == [Edge("a", "b", "(temporary)")]


def test_of_a_long_time_the_busiest_stretches_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUSY_MAX", 4)
    trace = Trace()
    for at in (0, 0, 0, 100, 200, 300, 400, 500, 600):
        trace.span("x", "a", "client", at=at, peer__service="b")
    measuring_ = Measuring()
    measuring_.read(trace.spans)
    about = measuring_.system().interactions[Edge("a", "b", "x")]
    assert about.measured is not None
    assert about.measured.peak_rate == 0.3
    assert all(len(busy) <= 4 for busy in measuring_._busy.values())


def test_an_answer_to_a_question_that_is_found_later_is_a_request_still() -> None:
    asking, working, answered = Trace(1), Trace(2), Trace(3)
    page = asking.span("page", "web", "server", took=5.0)
    asked = asking.span("t", "web", "producer", under=page, messaging__destination__name="t")
    link = ((asked.trace_id, asked.span_id),)
    at_work = working.span("t", "prices", "consumer", links=link, messaging__destination__name="t")
    answer = working.span(
        "r", "prices", "producer", under=at_work, messaging__destination__name="r"
    )
    answered.span("r", "web", "consumer", links=((answer.trace_id, answer.span_id),),
                  messaging__destination__name="r")  # fmt: skip
    system = measured([*working.spans, *asking.spans, *answered.spans])
    assert {str(edge): about.verb for edge, about in system.interactions.items()} == {
        "web->prices:t": Verb.REQUEST
    }


@pytest.mark.parametrize("write", FORMATS)
def test_a_large_document_takes_bounded_memory(
    write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PUBLISHED_MAX", 10)
    most_memory(write, 1)  # what is loaded on first use
    small, large = most_memory(write, 20), most_memory(write, 80)
    assert large < small * 1.5


def most_memory(write: Writer, count: int) -> int:
    whole = write(order(1))
    ends = {
        otlp: (b"", b"\n", b""),
        zipkin: (b"[", b",", b"]"),
        jaeger: (b'{"data":[', b",", b"]}"),
    }
    first, between, last = ends[write]
    inner = whole[len(first) : len(whole) - (0 if write is otlp else 1)]
    inner = inner.removesuffix(b'], "errors": null').removeprefix(b" [")

    def chunks() -> Iterator[bytes]:
        yield first
        for number in range(count):
            said = between if number else b""
            yield said + inner.replace(f"{1:032x}".encode(), f"{number + 1:032x}".encode())
        yield last

    tracemalloc.start()
    try:
        spans = Reading(chunks(), "x")
        made = Measuring()
        for trace in gathering.traces(spans, made.dropped, open_max=50):
            made.add(trace)
        assert made.system().traces == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_any_value_in_any_place_ends_as_a_system_or_as_misuse(
    write: Writer, data: st.DataObject
) -> None:
    document = json.loads(write(order(1)))
    for _ in range(data.draw(st.integers(1, 4))):
        _damage(document, data)
    reading = Reading([json.dumps(document).encode()], "x")
    try:
        system = measured(reading)
    except Misuse:
        return
    assert system.traces > 0


def _damage(document: object, data: st.DataObject) -> None:
    """Another value somewhere in it."""
    places: list[tuple[object, str | int]] = []
    todo = [document]
    while todo:
        at = todo.pop()
        if isinstance(at, dict | list):
            inner = list(at.items() if isinstance(at, dict) else enumerate(at))
            places += [(at, key) for key, _ in inner]
            todo += [value for _, value in inner]
    if places:
        at, key = data.draw(st.sampled_from(places))
        at[key] = data.draw(JSON)  # type: ignore[index]
