"""Messages as Kafka has them: the CloudEvents binding, both ways, and whatever others write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings import kafka as binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from callcast.brokers.kafka import wire
from callcast.brokers.kafka.records import record_of
from callcast.brokers.kafka.wire import Headers, Record
from callcast.core.message import NO_HEADERS, Message

NINE = datetime(2026, 11, 23, 9, tzinfo=UTC)
GOLDEN = Message(
    "a1",
    "/orders",
    "com.acme.order.placed.v1",
    "orders.placed",
    b'{"total":1}',
    "o-1",
    time=NINE.timestamp(),
    subject='Euro € "x" %',
)
GOLDEN_HEADERS: Headers = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"a1"),
    ("ce_source", b"/orders"),
    ("ce_type", b"com.acme.order.placed.v1"),
    ("content-type", b"application/json"),
    ("ce_time", b"2026-11-23T09:00:00Z"),
    ("ce_partitionkey", b"o-1"),
    ("ce_subject", 'Euro € "x" %'.encode()),
]


def headers_of(name: str, *values: bytes | None) -> wire.Found:
    """The headers of a record that says a name several times."""
    return dict(stored([(name, value) for value in values]).headers)


def stored(
    headers: Headers,
    *,
    key: bytes | None = None,
    value: bytes | None = b"{}",
    topic: str = "orders",
) -> Record:
    """A record with these headers."""
    return Record(topic, 3, 17, 5.0, key, value, headers)


class Came:
    """What the driver hands over."""

    def __init__(self, record: Record | None, kind: int = 1) -> None:
        self._record = record
        self._kind = kind

    def topic(self) -> str | None:
        return self._record and self._record.topic

    def partition(self) -> int | None:
        return self._record and self._record.partition

    def offset(self) -> int | None:
        return self._record and self._record.offset

    def timestamp(self) -> tuple[int, int]:
        return self._kind, int(self._record.time * 1_000) if self._record else -1

    def key(self) -> bytes | None:
        return self._record and self._record.key

    def value(self) -> bytes | None:
        return self._record and self._record.value

    def headers(self) -> Headers | None:
        return (self._record and self._record.headers) or None


# Ours


def test_the_golden_event_has_the_headers_of_the_binding() -> None:
    assert sorted(wire.encode(GOLDEN)) == sorted(GOLDEN_HEADERS)  # their order says nothing
    assert wire.decode(stored(GOLDEN_HEADERS, value=GOLDEN.body), "orders.placed") == GOLDEN


def test_the_cloudevents_sdk_decodes_our_record() -> None:
    message = replace(
        GOLDEN, correlation_id="c1", causation_id="p1", dataschema="https://acme/s", expires=2e9
    )
    said = binding.KafkaMessage(
        headers={name: value or b"" for name, value in wire.encode(message)},
        key=b"o-1",
        value=message.body,
    )
    event = binding.from_binary(said, JSONFormat())
    assert event.get_id() == "a1"
    assert event.get_source() == "/orders"
    assert event.get_type() == "com.acme.order.placed.v1"
    assert event.get_subject() == 'Euro € "x" %'
    assert event.get_time() == NINE
    assert event.get_dataschema() == "https://acme/s"
    assert event.get_extension("partitionkey") == "o-1"
    assert event.get_extension("correlationid") == "c1"
    assert event.get_extension("causationid") == "p1"
    assert event.get_extension("expirytime") == "2033-05-18T03:33:20Z"
    assert event.get_data() == {"total": 1}


@pytest.mark.parametrize("mode", [binding.to_binary, binding.to_structured])
def test_what_the_cloudevents_sdk_encodes_is_ours(mode: object) -> None:
    event = CloudEvent(
        {
            "id": "e-1",
            "source": "/shop",
            "type": "orders.placed",
            "time": NINE,
            "subject": "tea",
            "partitionkey": "o-7",
            "correlationid": "c-1",
            "traceparent": "00-1-2-01",
        },
        {"sku": "tea"},
    )
    said = mode(event, JSONFormat())  # type: ignore[operator]
    key = said.key.encode() if isinstance(said.key, str) else said.key
    found = wire.decode(stored(list(said.headers.items()), key=key, value=said.value), "orders")
    assert (found.id, found.source, found.type, found.key) == (
        *("e-1", "/shop", "orders.placed", "o-7"),
    )
    assert (found.subject, found.correlation_id, found.traceparent) == ("tea", "c-1", "00-1-2-01")
    assert found.time == NINE.timestamp()
    assert found.datacontenttype == "application/json"
    assert found.body.replace(b" ", b"") == b'{"sku":"tea"}'
    assert found.headers == NO_HEADERS


def test_a_structured_body_that_is_none_stays_as_it_is() -> None:
    headers: Headers = [("content-type", b"application/cloudevents+json")]
    found = wire.decode(stored(headers, value=b"not json"), "orders")
    assert (found.id, found.body) == ("orders/3/17", b"not json")


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
WHEN = st.none() | st.floats(1.0, 4e9).map(lambda at: round(at, 3))


@given(
    st.builds(
        Message,
        *(TEXT.filter(bool), TEXT.filter(bool), TEXT.filter(bool), st.just("orders")),
        st.binary(max_size=20),
        key=st.none() | TEXT.filter(bool),
        time=st.floats(1.0, 4e9).map(lambda at: round(at, 3)),
        subject=st.none() | TEXT,
        datacontenttype=st.sampled_from(["application/json", "text/plain; charset=utf-8"]),
        dataschema=st.none() | TEXT,
        correlation_id=st.none() | TEXT,
        causation_id=st.none() | TEXT,
        traceparent=st.none() | TEXT.filter(bool),
        tracestate=st.none() | TEXT.filter(bool),
        expires=WHEN,
        deliver_at=WHEN,
        headers=st.dictionaries(TEXT.map(lambda name: f"x-{name}"), TEXT, max_size=3),
    )
)
def test_whatever_is_sent_comes_back(message: Message) -> None:
    key = None if message.key is None else message.key.encode()
    record = stored(wire.encode(message), key=key, value=message.body)
    found = wire.decode(record, "orders")
    for moment in ("time", "expires"):
        assert getattr(found, moment) == pytest.approx(getattr(message, moment), abs=1e-6)
    assert replace(found, time=message.time, expires=message.expires) == message


def test_a_header_of_the_user_cannot_pass_for_one_of_ours() -> None:
    """A handler that hands on the headers it got, or a sender who means harm."""
    names = ("ce_id", "ce_source", "content-type", "callcast-round", "callcast-due", "ce_time")
    names = (*names, "callcast-key", "callcast-deliver-at", "callcast-null", "traceparent")
    message = replace(GOLDEN, headers={**dict.fromkeys(names, "9"), "x-own": "1"})
    record = stored(wire.encode(message), value=message.body)
    assert wire.decode(record, "orders.placed") == replace(GOLDEN, headers={"x-own": "1"})
    assert wire.round_of(dict(record.headers)) == 0
    assert wire.due_of(dict(record.headers)) == 0.0


# Others'


def test_a_record_of_somebody_else_has_its_place_as_its_id() -> None:
    found = wire.decode(stored([], key=b"k", value=b"raw"), "orders")
    assert (found.id, found.source, found.type) == ("orders/3/17", "kafka:orders", "orders")
    assert (found.key, found.body, found.time) == ("k", b"raw", 0.0)
    assert found.datacontenttype == "application/json"


def test_tombstones_null_keys_null_headers_and_bytes_are_read() -> None:
    headers: Headers = [("x-null", None), ("x-bytes", b"\xff\x00a"), ("x", b"1"), ("x", b"2")]
    found = wire.decode(stored(headers, key=None, value=None), "orders")
    assert (found.key, found.body) == (None, b"")
    assert found.headers == {"x-null": "", "x-bytes": "\\xff\x00a", "x": "2"}


def test_the_driver_s_record_is_taken_as_it_is() -> None:
    headers: Headers = [("x", b"1"), ("x", None), ("x", b"\xff")]
    record = Record("orders", 3, 17, 5.25, b"\xfe", None, headers)
    assert record_of(Came(record)) == record  # type: ignore[arg-type]
    assert record_of(Came(record, kind=0)) == replace(record, time=0.0)  # type: ignore[arg-type]
    nothing = Record("", 0, 0, 0.0, None, None, [])
    assert record_of(Came(None, kind=0)) == nothing  # type: ignore[arg-type]


def test_the_trace_is_read_from_the_event_where_the_record_has_none() -> None:
    headers: Headers = [("ce_traceparent", b"00-a"), ("ce_tracestate", b"v=1")]
    found = wire.decode(stored(headers), "orders")
    assert (found.traceparent, found.tracestate) == ("00-a", "v=1")
    found = wire.decode(stored([*headers, ("traceparent", b"00-b")]), "orders")
    assert found.traceparent == "00-b"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"2026-11-23T09:00:00Z", NINE.timestamp()),
        (b"2026-11-23T10:00:00+01:00", NINE.timestamp()),
        (b"2026-11-23T09:00:00", NINE.timestamp()),  # no zone: UTC, wherever this runs
        (b"2026-11-23T09:00:00.123456789Z", NINE.timestamp() + 0.123456),
        (b"0001-01-01T00:00:00", pytest.approx(-62135596800.0)),
        (b"yesterday", 0.0),
        (b"\xff", 0.0),
        (b"", 0.0),
    ],
)
def test_the_time_of_an_event(said: bytes, seconds: float) -> None:
    assert wire.decode(stored([("ce_time", said)]), "orders").time == seconds


@pytest.mark.parametrize(
    ("said", "round_", "due"),
    [
        (b"3", 3, 3.0),
        (b"2.5", 2, 2.5),
        (b"nan", 0, 0.0),
        (b"inf", 0, 0.0),
        (b"-inf", 0, 0.0),
        (b"-1", 0, 0.0),
        (b"1e300", wire.ROUND_MAX, wire.DUE_MAX),
        (b"three", 0, 0.0),
        (b"\xff", 0, 0.0),
        (None, 0, 0.0),
    ],
)
def test_a_round_and_a_due_time_are_numbers_or_nothing(
    said: bytes | None, round_: int, due: float
) -> None:
    assert wire.round_of(headers_of(wire.ROUND, b"7", said)) == round_
    assert wire.due_of(headers_of(wire.DUE, b"7", said)) == due


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(wire.KNOWN)) | TEXT, st.none() | st.binary(max_size=24)),
        max_size=6,
    ),
    st.none() | st.binary(max_size=6),
    st.none() | st.binary(max_size=6),
)
def test_no_record_stops_a_partition(
    headers: Headers, key: bytes | None, value: bytes | None
) -> None:
    """Whatever a record says, it is a message, and its copies can be written."""
    record = stored(headers, key=key, value=value)
    message = wire.decode(record, "orders")
    assert message.topic == "orders"
    assert 0 <= wire.round_of(dict(record.headers)) <= wire.ROUND_MAX
    assert 0 <= wire.due_of(dict(record.headers)) <= wire.DUE_MAX
    for copy in (
        wire.put_off(record, {}, round=1, due=2.0),
        wire.buried(record, {}, group="orders.billing", attempts=1),
    ):
        again = replace(record, topic="other", offset=99, headers=copy)
        assert wire.identity(wire.decode(again, "orders")) == wire.identity(message)
