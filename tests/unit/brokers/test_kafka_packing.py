"""From messages to Kafka's records: where they go, which cannot, and what became of them."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from callcast.brokers.kafka import codes
from callcast.brokers.kafka.options import BODY_MAX, RECORD_MAX, Options
from callcast.brokers.kafka.publishing import PIECE, Packing, failure, topic_of
from callcast.brokers.kafka.records import record_of
from callcast.brokers.kafka.sender import Parcel, Sender
from callcast.brokers.kafka.wire import Record
from callcast.core.errors import NotSent, Unanswered
from callcast.core.message import Message

WALL = 1_764_000_000.0
THERE = {"orders": 4, "orders.billing.redrive": 1}


def message(name: str, key: str | None = None, *, body: bytes = b"{}") -> Message:
    """A message of an order."""
    return Message(name, "tests", "orders", "orders", body, key)


def parcels_of(messages: list[Message]) -> list[Parcel]:
    """What is to be stored of them; none is refused."""
    parcels, errors = Packing().pack(messages, THERE, WALL)
    assert errors == [None] * len(messages)
    assert [index for index, _ in parcels] == list(range(len(messages)))
    return [parcel for _, parcel in parcels]


# Where they go


def test_a_key_decides_its_partition_and_nobody_else() -> None:
    [parcel] = parcels_of([message("1", "o-1")])
    assert (parcel.topic, parcel.key, parcel.partition) == ("orders", b"o-1", -1)
    assert parcel.value == b"{}"
    assert dict(parcel.headers)["ce_partitionkey"] == b"o-1"


@pytest.mark.parametrize(
    "bad",
    [
        message("bad", "\ud800"),
        replace(message("bad"), subject="\ud800"),
        replace(message("bad"), headers={"note": "\ud800"}),
        replace(message("bad"), headers={"\ud800": "note"}),
    ],
)
def test_what_is_no_text_is_not_sent_and_takes_no_other_along(bad: Message) -> None:
    parcels, errors = Packing().pack([message("1", "a"), bad, message("2", "b")], THERE, WALL)
    assert [index for index, _ in parcels] == [0, 2]
    assert isinstance(errors[1], NotSent)
    assert errors[1].id == "bad"
    assert "'\\ud800' is no text that can be sent" in str(errors[1])


def test_what_is_for_one_group_goes_to_its_own_topic() -> None:
    redriven = replace(message("1", "o-1"), group="billing")
    assert topic_of(redriven) == "orders.billing.redrive"
    [parcel] = parcels_of([redriven])
    assert parcel.topic == "orders.billing.redrive"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_keyless_messages_spread_in_pieces_that_keep_their_order(sizes: list[int]) -> None:
    packing = Packing()
    for size in sizes:
        packed, _ = packing.pack([message(str(at)) for at in range(size)], THERE, WALL)
        places = [parcel.partition for _, parcel in packed]
        assert all(0 <= place < 4 for place in places)
        turns = sum(one != other for one, other in pairwise(places)) + 1
        assert turns == max(1, min(4, size // PIECE))


def test_single_keyless_messages_take_turns_over_the_partitions() -> None:
    packing = Packing()
    places = [packing.pack([message("1")], THERE, WALL)[0][0][1].partition for _ in range(8)]
    assert places == [0, 1, 2, 3, 0, 1, 2, 3]


JAVA = {
    b"21": -973_932_308,
    b"foobar": -790_332_482,
    b"a-little-bit-long-string": -985_981_536,
    b"a-little-bit-longer-string": -1_486_304_829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58_897_971,
    b"abc": 479_470_107,
}
"""Of Kafka's own tests (``UtilsTest.testMurmur2``)."""


def test_a_key_goes_where_java_sends_it() -> None:
    """Asked of the driver with our settings, which plays a cluster in this process by itself."""
    producer = Producer({**Options(servers="").producer, "test.mock.num.brokers": 1})
    found: dict[bytes | None, int | None] = {}
    try:
        count = len(producer.list_topics("orders", timeout=10).topics["orders"].partitions)
        for key in JAVA:
            producer.produce(
                "orders",
                b"",
                key,
                on_delivery=lambda _, one: found.update({one.key(): one.partition()}),
            )
        assert producer.flush(10) == 0
    finally:
        producer.close()
    assert count == 4
    assert found == {key: (murmur2 & 0x7FFF_FFFF) % 4 for key, murmur2 in JAVA.items()}


def test_null_and_repeated_headers_null_keys_and_tombstones_survive_the_driver() -> None:
    """As above; a record is copied to other topics as it is read."""
    producer = Producer({**Options(servers="").producer, "test.mock.num.brokers": 1})
    node = next(iter(producer.list_topics("orders", timeout=10).brokers.values()))
    reader = Consumer(Options(servers=f"{node.host}:{node.port}").reader)
    headers = [("x", b"1"), ("x", None), ("callcast-key", None), ("x", b"\xff\x00")]
    try:
        producer.produce("orders", None, None, 0, headers=headers, timestamp=1_764_000_000_250)
        assert producer.flush(10) == 0
        reader.assign([TopicPartition("orders", 0, 0)])
        came = reader.poll(10)
        assert came is not None
        found = record_of(came)
    finally:
        reader.close()
        producer.close()
    assert found == Record("orders", 0, 0, 1_764_000_000.25, None, None, headers)


# Which cannot go


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (message("1", body=b"x" * (BODY_MAX + 1)), f"has {BODY_MAX + 1} bytes, and at most"),
        (replace(message("1"), topic="misspelt"), "no topic 'misspelt': ensure it first"),
        (replace(message("1"), group="crm"), "no group orders/crm: ensure it first"),
        (replace(message("1"), deliver_at=WALL + 1), "Kafka does not schedule"),
    ],
)
def test_what_cannot_go_is_refused_at_once_and_the_rest_goes(wrong: Message, said: str) -> None:
    packed, errors = Packing().pack([message("0"), wrong, message("2")], THERE, WALL)
    assert [index for index, _ in packed] == [0, 2]
    assert [error is None for error in errors] == [True, False, True]
    assert isinstance(errors[1], NotSent)
    assert errors[1].id == "1"
    assert said in str(errors[1])


def test_what_is_due_already_goes() -> None:
    parcels_of([replace(message("1"), deliver_at=WALL - 1)])


def test_behind_a_refused_message_its_key_stops_and_others_go() -> None:
    big = b"x" * (BODY_MAX + 1)
    batch = [message("0", "a"), message("1", "a", body=big), message("2", "a"), message("3", "b")]
    packed, errors = Packing().pack(batch, THERE, WALL)
    assert [index for index, _ in packed] == [0, 3]
    assert "an earlier message of its key was refused" in str(errors[2])


def test_a_body_of_the_largest_size_goes() -> None:
    parcels_of([message("1", "a", body=b"x" * BODY_MAX)])


async def test_a_record_too_large_for_its_headers_is_refused_at_once() -> None:
    """The driver knows without asking the server, and nothing is tried again."""
    sender = Sender({**Options(servers="127.0.0.1:1").producer, "log_level": 0})
    try:
        fat = replace(message("1", "a"), headers={"x": "y" * (RECORD_MAX + 1)})
        errors = await sender.send(parcels_of([fat]))
    finally:
        sender.close()
    fault = failure(fat, errors[0])
    assert isinstance(fault, NotSent)
    assert "was not sent" in str(fault)
    assert not [one for one in threading.enumerate() if one.name == "callcast-kafka-send"]


# What became of them


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, NotSent),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, NotSent),
        (codes.UNKNOWN_TOPIC, NotSent),
        (codes.UNKNOWN_PARTITION, NotSent),
        (codes.PURGED, NotSent),
        (codes.TIMED_OUT, Unanswered),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, Unanswered),
        (KafkaError.REQUEST_TIMED_OUT, Unanswered),
    ],
)
def test_a_failure_says_whether_it_may_be_stored(code: int, kind: type[Exception]) -> None:
    fault = failure(message("7"), KafkaError(code, "no such luck"))
    assert type(fault) is kind
    assert fault.id == "7"
    assert "no such luck" in str(fault)
