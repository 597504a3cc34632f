"""Records of Kafka that nobody of ours has written, or that are no messages at all."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from broker_parts import fetched, handled, listening, message, topic, until
from confluent_kafka.cimpl import NewTopic
from kafka_ground import (
    asked,
    away,
    configuration,
    opened,
    read,
    write,
    write_in_transactions,
)
from servers import OwnServer

from callcast import Bus, Event, Service, Struct
from callcast.brokers.kafka import KafkaBroker
from callcast.core.outcome import DONE, Dead, Later
from callcast.ports.broker import Broker, Part, Source

pytestmark = pytest.mark.timeout(60)

ONE = "session=2&partitions=1"


@pytest.fixture
def url(a_kafka_of_its_own: OwnServer) -> str:
    return a_kafka_of_its_own.url


@pytest.fixture
async def kafka(url: str) -> AsyncGenerator[KafkaBroker]:
    async with opened(url, ONE) as broker:
        yield broker


async def nothing_waits(broker: Broker, source: Source) -> bool:
    lag = await broker.lag(source)
    return not lag.ready + lag.leased + lag.delayed


class Order(Struct):
    id: str


async def test_bytes_that_are_no_message_end_among_the_dead_and_stop_nobody(url: str) -> None:
    """Neither does the partition stand still, nor is the record skipped without a word."""
    event = Event(topic(), Order)
    service = Service("billing")
    seen: list[str] = []

    @service.on(event)
    async def take(order: Order) -> None:
        seen.append(order.id)

    records: list[Any] = [
        (None, b'{"id": "before"}', []),
        (None, b"\x00\x00\x00\x00\x07\xff\xfeAvro", []),
        (
            b"\xff\xfe",
            b"\xff",
            [("ce_id", b"\xff"), ("ce_time", b"never"), ("ce_specversion", b"9")],
        ),
        (None, b"", []),
        (None, b'{"id": 7}', []),
        (None, b'{"id": "behind"}', []),
    ]
    async with Bus(f"{url}?{ONE}", services=[service]) as bus:
        await away(write, url, event.topic, records)
        await until(lambda: seen == ["before", "behind"])
        await bus.idle()
    source = Source(event.topic, "billing")
    async with opened(url, ONE) as broker:
        letters = await broker.browse(source, part=Part.DEAD)
        assert {letter.message.body for letter in letters} == {
            value for _, value, _ in records[1:5]
        }
        assert await nothing_waits(broker, source)


ODD: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (b"key", None, []),
    (None, b'"no key"', []),
    (None, None, []),
    (
        b"\xff\xfe",
        b'"bytes"',
        [("null", None), ("bytes", b"\xff\x00"), ("twice", b"1"), ("twice", b"2"), ("empty", b"")],
    ),
]


async def test_tombstones_null_keys_and_odd_headers_survive_delays_and_the_dead_letters(
    url: str, kafka: KafkaBroker
) -> None:
    source = await listening(kafka)
    await away(write, url, source.topic, ODD)
    consumer = await kafka.consume(source)
    first = await fetched(consumer, len(ODD))
    ids = [one.message.id for one in first]
    assert len(set(ids)) == len(ODD)
    await consumer.settle([(one, Later(0.5)) for one in first])
    again = await fetched(consumer, len(ODD))
    assert sorted(one.message.id for one in again) == sorted(ids)
    assert {one.round for one in again} == {1}
    assert sorted(one.message.body for one in again) == sorted(value or b"" for _, value, _ in ODD)
    await consumer.settle([(one, Dead("no")) for one in again])
    letters = await away(read, url, f"{source.topic}.group.dead")
    kept = {tuple(headers) for _, _, headers in ODD}
    written = {tuple(pair for pair in one.headers() or () if is_theirs(pair[0])) for one in letters}
    assert written == kept
    shown = {one.message.id: one.message for one in await kafka.browse(source, part=Part.DEAD)}
    assert shown.keys() == set(ids)
    assert {one.id: one.key for one in shown.values()} == {
        one.message.id: one.message.key for one in first
    }
    assert await nothing_waits(kafka, source)


def is_theirs(header: str) -> bool:
    return header in {"null", "bytes", "twice", "empty"}


async def test_the_marks_of_transactions_are_passed_and_aborted_records_never_seen(
    url: str, kafka: KafkaBroker
) -> None:
    source = await listening(kafka)
    names = {"a": True, "b": False, "c": True, "d": False}
    await away(write_in_transactions, url, source.topic, names)
    consumer = await kafka.consume(source)
    found = await fetched(consumer, 2)
    assert [one.message.body for one in found] == [b"a", b"c"]
    await consumer.settle([(one, DONE) for one in found])
    assert await consumer.fetch(1, 0) == ()
    await until(lambda: nothing_waits(kafka, source))
    await consumer.close()  # and who comes next has nothing to do, either
    assert await nothing_waits(kafka, source)
    assert await handled(await kafka.consume(source)) == []
    assert list(await kafka.browse(source)) == []


async def test_what_the_compaction_has_taken_away_is_passed(url: str, kafka: KafkaBroker) -> None:
    name = topic()
    small = {
        "cleanup.policy": "compact",
        "segment.ms": "200",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "200",
    }
    await asked(url, lambda admin: admin.create_topics([NewTopic(name, 1, 1, config=small)]))
    source = Source(name, "group", ordered=True)
    await kafka.ensure([name], [source])
    for number in range(6):  # each in a segment of its own
        time.sleep(0.3)
        await away(write, url, name, [(b"same", str(number).encode(), [])])

    async def is_compacted() -> bool:
        return len(await away(read, url, name)) < 4

    await until(is_compacted)
    left = [one.value() for one in await away(read, url, name)]
    consumer = await kafka.consume(source)
    found: list[bytes] = []
    while len(found) < len(left):
        batch = await fetched(consumer, 1)
        found += [one.message.body for one in batch]
        await consumer.settle([(one, DONE) for one in batch])
    assert found == left
    assert await consumer.fetch(1, 0) == ()
    await until(lambda: nothing_waits(kafka, source))


async def test_a_long_delay_does_not_hold_up_a_short_one_nor_what_has_none(
    kafka: KafkaBroker,
) -> None:
    source = await listening(kafka)
    names = ("long", "short", "none")
    await kafka.publish([message(name, source.topic) for name in names])
    consumer = await kafka.consume(source)
    took = {one.message.id: one for one in await fetched(consumer, 3)}
    began = time.monotonic()
    delays = {"long": 9.0, "short": 1.0}  # of one retry topic
    await consumer.settle([(took[name], Later(delay)) for name, delay in delays.items()])
    await consumer.settle([(took["none"], DONE)])
    await kafka.publish([message("next", source.topic)])
    [following] = await fetched(consumer, 1, within=0.9)
    [short] = await fetched(consumer, 1, within=4)
    assert time.monotonic() - began >= 1.0
    assert (following.message.id, short.message.id) == ("next", "short")
    lag = await kafka.lag(source)
    assert lag.delayed == 1


async def test_dead_letters_are_kept_by_source_and_id_and_a_redrive_leaves_a_tombstone(
    url: str, kafka: KafkaBroker
) -> None:
    source = await listening(kafka)
    dead, redrive = f"{source.topic}.group.dead", f"{source.topic}.group.redrive"
    found = await configuration(url, dead)
    assert found["cleanup.policy"] == "compact"
    assert (await configuration(url, redrive))["retention.ms"] == "-1"
    await kafka.publish([message("m", source.topic, key="k", body=b'"body"')])
    consumer = await kafka.consume(source)
    [one] = await fetched(consumer, 1)
    await consumer.settle([(one, Dead("no"))])
    [letter] = await away(read, url, dead)
    assert (letter.key(), letter.value()) == (b"tests/m", b'"body"')
    redriver = await kafka.consume(source, part=Part.DEAD)
    [held] = await fetched(redriver, 1)
    again = message("m", source.topic, key="k", body=b'"body"')
    again = type(again)(
        **{**{f: getattr(again, f) for f in again.__struct_fields__}, "group": "group"}
    )
    await kafka.publish([again])
    await redriver.settle([(held, DONE)])
    assert [one.value() for one in await away(read, url, redrive)] == [b'"body"']
    *_, last = await away(read, url, dead)
    assert (last.key(), last.value()) == (b"tests/m", None)
    assert await handled(consumer) == ["m"]
    assert list(await kafka.browse(source, part=Part.DEAD)) == []
