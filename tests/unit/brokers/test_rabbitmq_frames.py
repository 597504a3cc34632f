"""Frames of messages are written and read past pika's codec: the bytes and the values are pika's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, spec
from pika.exceptions import InvalidFrameError, ShortStringTooLong
from pika.frame import Body, Header, Method, decode_frame

from callcast.brokers.rabbitmq import deliveries, frames, wire
from callcast.brokers.rabbitmq.deliveries import Came, Incomplete, Reader
from callcast.brokers.rabbitmq.frames import Usual

names = st.text(max_size=20)
texts = st.text(max_size=40)
others = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
    st.binary(max_size=10),
    st.lists(st.text(max_size=5), max_size=3),
    st.just(datetime(2026, 11, 30, 12, 0, tzinfo=UTC)),
)
tables = st.dictionaries(names, st.one_of(texts, texts, others), max_size=8)
moments = st.integers(0, 2**40)


def as_pika(usual: Usual) -> BasicProperties:
    return BasicProperties(
        content_type=usual.content_type,
        headers=usual.headers,
        delivery_mode=2,
        timestamp=usual.timestamp,
    )


def delivered(
    properties: BasicProperties, body: bytes, *, tag: int = 7, redelivered: bool = False
) -> bytes:
    """As a broker writes it."""
    method = spec.Basic.Deliver("3.0", tag, redelivered, "orders", "all")
    return b"".join((Method(3, method).marshal(), content(properties, body)))


def content(properties: BasicProperties, body: bytes, *, channel: int = 3) -> bytes:
    body_frame = Body(channel, body).marshal() if body else b""
    return Header(channel, len(body), properties).marshal() + body_frame


def read_by_pika(written: bytes) -> Came:
    read: list[Any] = []
    while written:
        count, frame = decode_frame(written)
        written = written[count:]
        read.append(frame)
    body = read[2].fragment if len(read) > 2 else b""
    return deliveries.of_pika(read[0].method, read[1].properties, body)


def seen(came: Came | None) -> tuple[Any, ...]:
    assert came is not None
    return (came.tag, came.is_redelivered, came.content_type, came.headers, came.timestamp,
            came.body)  # fmt: skip


# Written


@given(texts, tables, moments)
def test_properties_are_written_as_pika_writes_them(
    content_type: str, headers: dict[str, Any], timestamp: int
) -> None:
    usual = Usual(content_type, headers, timestamp)
    assert b"".join(usual.encode()) == b"".join(as_pika(usual).encode())


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 350])
@pytest.mark.parametrize("mandatory", [True, False])
def test_a_publish_is_written_as_pika_writes_it(size: int, *, mandatory: bool) -> None:
    body = bytes(range(256)) * 2
    body = body[:size]
    properties = BasicProperties(headers={"a": "b"}, delivery_mode=2)
    place = (5, "orders", "all", mandatory)
    written = frames.published(place, b"".join(properties.encode()), body, body_max=100)
    method = spec.Basic.Publish(exchange="orders", routing_key="all", mandatory=mandatory)
    parts = [body[start : start + 100] for start in range(0, size, 100)]
    assert written == b"".join(
        (
            Method(5, method).marshal(),
            Header(5, size, properties).marshal(),
            *(Body(5, part).marshal() for part in parts),
        )
    )


def test_what_amqp_cannot_express_is_refused_before_anything_is_written() -> None:
    with pytest.raises(ShortStringTooLong):
        Usual("text/plain", {"n" * 256: "v"}, 0).encode()
    with pytest.raises(ShortStringTooLong):
        Usual("t" * 256, {}, 0).encode()
    with pytest.raises(UnicodeEncodeError):
        Usual("text/plain", {"name": "\ud800"}, 0).encode()


# Read


@given(
    st.lists(st.tuples(texts, tables, moments, st.binary(max_size=50), st.booleans()), max_size=5)
)
def test_deliveries_are_read_as_pika_reads_them(
    messages: list[tuple[str, dict[str, Any], int, bytes, bool]],
) -> None:
    """Twice each: the second time its table is like an earlier one."""
    reader = Reader()
    for content_type, headers, timestamp, body, redelivered in [*messages, *messages]:
        properties = as_pika(Usual(content_type, headers, timestamp))
        written = delivered(properties, body, redelivered=redelivered)
        came = reader.came(b"..." + written + b"next", 3)
        assert seen(came) == seen(read_by_pika(written))
        assert came is not None
        assert came.end == 3 + len(written)


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.text("xyé", max_size=3)), max_size=20))
def test_a_table_that_only_resembles_an_earlier_one_is_read_anew(
    tables: list[dict[str, str]],
) -> None:
    reader = Reader()
    for headers in tables:
        came = reader.came(delivered(as_pika(Usual("text/plain", headers, 1)), b"!"), 0)
        assert came is not None
        assert came.headers == headers


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": texts,
            "headers": tables,
            "delivery_mode": st.sampled_from([1, 2]),
            "priority": st.integers(0, 9),
            "correlation_id": texts,
            "message_id": texts,
            "timestamp": moments,
            "app_id": texts,
        },
    )
)
def test_other_properties_are_no_hindrance(given: dict[str, Any]) -> None:
    written = delivered(BasicProperties(**given), b"body")
    assert seen(Reader().came(written, 0)) == seen(read_by_pika(written))


def test_a_name_that_stands_twice_is_read_as_pika_reads_it_each_time() -> None:
    once = delivered(as_pika(Usual("text/plain", {"aa": "1", "ab": "2"}, 1)), b"!")
    twice = once.replace(b"\x02ab", b"\x02aa")
    reader = Reader()
    for _ in range(2):
        assert seen(reader.came(twice, 0)) == seen(read_by_pika(twice))
        assert seen(reader.came(once, 0)) == seen(read_by_pika(once))


def test_what_is_no_text_stays_bytes_as_in_pika() -> None:
    written = delivered(as_pika(Usual("text/plain", {"a": "XX"}, 1)), b"!")
    broken = written.replace(b"XX", b"\xff\xfe")
    assert seen(Reader().came(broken, 0)) == seen(read_by_pika(broken))
    came = Reader().came(broken, 0)
    assert came is not None
    assert came.headers == {"a": b"\xff\xfe"}


def test_a_delivery_is_waited_for_until_all_of_it_is_here() -> None:
    written = delivered(as_pika(Usual("text/plain", {"a": "b"}, 1)), b"body")
    for end in range(frames.AROUND, len(written)):
        with pytest.raises(Incomplete):
            Reader().came(written[:end], 0)


def a_reader_that_has_seen(written: bytes) -> Reader:
    reader = Reader()
    assert reader.came(written, 0) is not None
    return reader


def test_one_like_an_earlier_one_is_waited_for_too() -> None:
    written = delivered(as_pika(Usual("text/plain", {"a": "b"}, 1)), b"body")
    reader = a_reader_that_has_seen(written)
    for end in range(frames.AROUND, len(written)):
        with pytest.raises(Incomplete):
            reader.came(written[:end], 0)


def test_one_like_an_earlier_one_says_itself_whether_it_was_delivered_before() -> None:
    usual = as_pika(Usual("text/plain", {"a": "b"}, 1))
    reader = a_reader_that_has_seen(delivered(usual, b"body"))
    again = delivered(usual, b"a longer body", tag=9, redelivered=True)
    came = reader.came(again, 0)
    assert seen(came) == seen(read_by_pika(again))
    assert came is not None
    assert came.is_plain


def test_one_like_an_earlier_one_that_ends_wrongly_or_is_no_text_is_read_as_pika_reads_it() -> None:
    written = delivered(as_pika(Usual("text/plain", {"a": "XX"}, 1)), b"body")
    reader = a_reader_that_has_seen(written)
    assert reader.came(written[:-1] + b"!", 0) is None
    broken = written.replace(b"XX", b"\xff\xfe")
    assert seen(reader.came(broken, 0)) == seen(read_by_pika(broken))


def test_a_body_of_two_frames_behind_headers_like_earlier_ones_is_left_to_pika() -> None:
    properties = as_pika(Usual("text/plain", {"a": "b"}, 1))
    reader = a_reader_that_has_seen(delivered(properties, b"body"))
    method = Method(3, spec.Basic.Deliver("3.0", 1, False, "orders", "all")).marshal()
    header = Header(3, 8, properties).marshal()
    assert reader.came(method + header + 2 * Body(3, b"half").marshal(), 0) is None


def test_more_shapes_than_are_remembered_are_all_read() -> None:
    reader = Reader()
    for size in [*range(1_100), 1]:
        written = delivered(as_pika(Usual("text/plain", {"a": size * "x"}, 1)), b"body")
        assert seen(reader.came(written, 0)) == seen(read_by_pika(written))


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(Method(4, spec.Channel.FlowOk(True)).marshal(), id="another's frame"),
        pytest.param(content(BasicProperties(), b"body", channel=4), id="another's content"),
        pytest.param(
            Header(3, 8, BasicProperties()).marshal() + 2 * Body(3, b"half").marshal(),
            id="a body of two frames",
        ),
    ],
)
def test_frames_that_do_not_follow_each_other_are_left_to_pika(behind: bytes) -> None:
    method = Method(3, spec.Basic.Deliver("3.0", 1, False, "orders", "all")).marshal()
    assert Reader().came(method + behind + bytes(40), 0) is None


def test_a_frame_that_ends_wrongly_is_left_to_pika_which_refuses_it() -> None:
    written = delivered(as_pika(Usual("text/plain", {}, 1)), b"body")
    assert Reader().came(written[:-1] + b"!", 0) is None
    with pytest.raises(InvalidFrameError):
        decode_frame(Body(3, b"body").marshal()[:-1] + b"!")


@given(st.integers(1, 65535), st.integers(1, 2**63), st.booleans())
def test_a_confirm_is_read(channel: int, number: int, multiple: bool) -> None:
    written = Method(channel, spec.Basic.Ack(number, multiple)).marshal()
    confirm = frames.confirm(b"." + written, 1)
    assert confirm == (channel, number, multiple, 1 + len(written))
    assert frames.confirm(written[:-1], 0) is None
    assert frames.confirm(Method(channel, spec.Basic.Nack(number)).marshal(), 0) is None


def test_only_a_delivery_has_a_consumer() -> None:
    written = delivered(BasicProperties(), b"")
    assert deliveries.consumer_of(written, 0) == b"3.0"
    assert deliveries.consumer_of(content(BasicProperties(), b"x"), 0) == b""
    assert deliveries.consumer_of(Method(3, spec.Basic.CancelOk("3.0")).marshal(), 0) == b""


# Times in headers


@given(st.floats(0, 4e9))
def test_times_are_written_and_read_as_the_library_does(at: float) -> None:
    text = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    assert wire.stamp(at) == text
    assert wire.seconds(text) == datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T23:59:59Z",
        "2026-01-31T23:59:59.5+01:00",
        "2026-01-31T23:59:59.123456Z",
        "2026-01-31T23:59:59.123456789Z",
        "2026-01-31 23:59:59.123456",
    ],
)
def test_any_time_that_the_library_reads_is_read(text: str) -> None:
    moment = datetime.fromisoformat(text)
    expected = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    assert wire.seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-01-31T23:59:59;123456Z", "2026-13-31T23:59:59.123456Z"]
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert wire.seconds(text) is None
