"""What the copies of a Kafka record say: those put off, and dead letters, ours and others'."""

from __future__ import annotations

import struct

import pytest
from msgspec.structs import replace

from callcast.brokers.kafka import wire
from callcast.brokers.kafka.wire import Headers, Record
from callcast.cli.letters import letter_of, redriven
from callcast.core.message import Message
from callcast.core.outcome import DEAD_REASON
from callcast.ports.broker import Source

SOURCE = Source("orders", "billing")
ODD: Headers = [("x", b"1"), ("x", None), ("x", b"\xff\x00"), ("y", b"")]


def stored(headers: Headers, *, key: bytes | None = b"k", value: bytes | None = b"v") -> Record:
    """A record of somebody else."""
    return Record("orders", 3, 17, 5.0, key, value, headers)


def in_dead_topic(record: Record, message: Message, reason: str = "broken") -> Record:
    """The record as it lies among the dead letters."""
    headers = wire.buried(record, {DEAD_REASON: reason}, group="orders.billing", attempts=4)
    key = wire.identity(message)
    return Record("orders.billing.dead", 0, 5, 5.0, key, record.value or b"", headers)


def test_a_copy_keeps_null_bytes_and_repeated_headers() -> None:
    record = stored(ODD)
    copy = wire.put_off(record, {"callcast-first-failed-at": "now"}, round=2, due=7.5)
    assert [pair for pair in copy if pair[0] in {"x", "y"}] == ODD
    assert dict(copy)["callcast-first-failed-at"] == b"now"
    again = wire.put_off(replace(record, headers=copy), {}, round=3, due=8.5)
    assert [name for name, _ in again].count(wire.ROUND) == 1
    late = replace(record, topic="orders.billing.retry.10s", headers=again)
    assert (wire.round_of(dict(late.headers)), wire.due_of(dict(late.headers))) == (3, 8.5)
    assert [pair for pair in again if pair[0] in {"x", "y"}] == ODD


def test_a_message_of_somebody_else_stays_the_same_message_in_each_copy() -> None:
    """Its id is its place, and a copy lies elsewhere: duplicates are known by source and id."""
    record = stored([])
    message = wire.decode(record, "orders")
    late = replace(
        record,
        topic="orders.billing.retry.10s",
        offset=99,
        headers=wire.put_off(record, {}, round=1, due=7.5),
    )
    assert wire.decode(late, "orders") == message
    dead = wire.decode(in_dead_topic(late, message), "orders")
    assert (dead.id, dead.source) == ("orders/3/17", "kafka:orders")


@pytest.mark.parametrize("key", [b"k", None])
@pytest.mark.parametrize("headers", [[], wire.encode(Message("1", "s", "t", "orders", b"v"))])
def test_a_dead_letter_has_the_key_of_its_message(key: bytes | None, headers: Headers) -> None:
    record = stored(headers, key=key)
    message = wire.decode(record, "orders")
    dead = wire.decode(in_dead_topic(record, message), "orders")
    assert dead.key == message.key == (None if key is None else "k")
    assert "callcast-key" not in dead.headers


def test_a_dead_letter_says_where_it_died_in_kafka_s_own_words() -> None:
    record = stored([*ODD, (wire.ROUND, b"2"), (wire.DUE, b"7")], value=None)
    message = wire.decode(record, "orders")
    dead = in_dead_topic(record, message)
    said = dict(dead.headers)
    assert {name: value for name, value in said.items() if name.startswith(wire.ERRORS)} == {
        "__dlq.errors.topic": b"orders",
        "__dlq.errors.partition": b"3",
        "__dlq.errors.offset": b"17",
        "__dlq.errors.group": b"orders.billing",
        "__dlq.errors.delivery.count": b"4",
        "__dlq.errors.message": b"broken",
    }
    assert said[wire.NULL] == b"1"
    assert not {wire.ROUND, wire.DUE} & said.keys()
    assert [pair for pair in dead.headers if pair[0] in {"x", "y"}] == ODD


def test_a_reason_that_is_no_text_can_be_written() -> None:
    message = wire.decode(stored([]), "orders")
    dead = in_dead_topic(stored([]), message, reason="half a pair: \ud83d")
    assert dict(dead.headers)[DEAD_REASON] == b"half a pair: \\ud83d"


def test_a_redriven_letter_starts_without_the_words_of_dead_letters() -> None:
    dead = wire.decode(in_dead_topic(stored(ODD), wire.decode(stored(ODD), "orders")), "orders")
    sent = wire.encode(redriven(dead, "billing", "ops"))
    assert not [name for name, _ in sent if name.startswith("__")]
    found = wire.decode(Record("orders.billing.redrive", 0, 1, 6.0, b"k", b"v", sent), "orders")
    assert (found.id, found.source, found.key) == (dead.id, dead.source, "k")
    assert found.headers["callcast-redriven-by"] == "ops"


# Those of others. Spring writes numbers as big-endian binaries, the others as text.

SPRING: Headers = [
    ("kafka_dlt-original-topic", b"orders"),
    ("kafka_dlt-original-partition", struct.pack(">i", 3)),
    ("kafka_dlt-original-offset", struct.pack(">q", 17)),
    ("kafka_dlt-original-timestamp", struct.pack(">q", 1_795_424_400_000)),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"com.acme.NoSuchSku"),
    ("kafka_dlt-exception-message", b"no such sku"),
    ("kafka_dlt-exception-stacktrace", b"at com.acme.Pack"),
]
STREAMS: Headers = [
    ("__streams.errors.exception", b"com.acme.NoSuchSku"),
    ("__streams.errors.message", b"no such sku"),
    ("__streams.errors.stacktrace", b"at com.acme.Pack"),
    ("__streams.errors.topic", b"orders"),
    ("__streams.errors.partition", b"3"),
    ("__streams.errors.offset", b"17"),
]
SHARED: Headers = [
    ("__dlq.errors.topic", b"orders"),
    ("__dlq.errors.partition", b"3"),
    ("__dlq.errors.offset", b"17"),
    ("__dlq.errors.group", b"billing"),
    ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"no such sku"),
]


@pytest.mark.parametrize(
    ("headers", "error_type", "group", "attempts"),
    [
        (SPRING, "com.acme.NoSuchSku", "billing", 0),
        (STREAMS, "com.acme.NoSuchSku", None, 0),
        (SHARED, "", "billing", 5),
    ],
)
def test_a_dead_letter_of_others_tells_its_origin_and_reason(
    headers: Headers, error_type: str, group: str | None, attempts: int
) -> None:
    message = wire.decode(stored(headers), "orders.DLT")
    letter = letter_of(SOURCE, message)
    assert letter.reason == "no such sku"
    assert (letter.error_type, letter.attempts) == (error_type, attempts)
    assert message.headers["callcast-source"] == "orders"
    assert message.headers.get("callcast-group") == group
    prefix = headers[0][0].rpartition("topic")[0] or "__streams.errors."
    assert message.headers[f"{prefix}partition"] == "3"
    assert message.headers[f"{prefix}offset"] == "17"


def test_spring_s_times_and_traces_are_read() -> None:
    headers = wire.decode(stored(SPRING), "orders.DLT").headers
    assert headers["kafka_dlt-original-timestamp"] == "1795424400000"
    assert headers["kafka_dlt-original-timestamp-type"] == "CreateTime"
    assert headers["callcast-error-stack"] == "at com.acme.Pack"
    odd = wire.decode(stored([("kafka_dlt-original-partition", b"3")]), "orders.DLT").headers
    assert odd == {"kafka_dlt-original-partition": "3"}


def test_what_we_say_ourselves_wins() -> None:
    headers: Headers = [*SHARED, (DEAD_REASON, b"poison"), ("callcast-group", b"shop")]
    found = wire.decode(stored(headers), "orders").headers
    assert (found[DEAD_REASON], found["callcast-group"]) == ("poison", "shop")


def test_words_of_dead_letters_are_not_sent_on() -> None:
    found = wire.decode(stored([*SPRING, *STREAMS, *SHARED]), "orders")
    sent = {name for name, _ in wire.encode(found)}
    assert not {name for name in sent if name.startswith(("__", "kafka_dlt-"))}
