"""Kafka with programs that nobody here wrote: kcat, plain confluent-kafka, the CloudEvents SDK."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import servers
from broker_parts import fetched, listening, topic
from cloudevents.core.bindings import kafka as binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from operator_parts import records, run

from callcast import Bus, Context, Event, Service, Struct, Transaction
from callcast.brokers.kafka import KafkaBroker, options_of
from callcast.core.message import Message
from callcast.core.outcome import DEAD_REASON, Dead
from callcast.ports.broker import Part, Source
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(120)

MOMENT = datetime(2026, 11, 23, 9, tzinfo=UTC)
SUBJECT = 'Euro € "x" %'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ATTRIBUTES = {
    "id": "a1",
    "source": "/orders",
    "specversion": "1.0",
    "subject": SUBJECT,
    "time": MOMENT,
    "type": "com.acme.order.placed.v1",
}
"""The golden vector of all bindings."""


class Customer(Struct):
    id: str
    name: str


class Theirs(NamedTuple):
    """A record as a stranger reads it."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes | None]


def golden(to: str) -> Message:
    return Message(
        "a1",
        "/orders",
        "com.acme.order.placed.v1",
        to,
        b'{"sku": "tea"}',
        "k",
        time=MOMENT.timestamp(),
        subject=SUBJECT,
        traceparent=TRACE,
        headers={"tenant": "north"},
    )


@pytest.fixture
def at(kafka_url: str) -> str:
    """Where the server is, as strangers say it."""
    return kafka_url.partition("://")[2]


@pytest.fixture
async def broker(kafka_url: str) -> AsyncGenerator[KafkaBroker]:
    one = KafkaBroker(options_of(f"{kafka_url}?partitions=4", {}), clock=AsyncioClock())
    yield one
    await one.close()


@pytest.fixture(scope="session")
def kcat() -> str:
    """The command line client of others, from Debian's package."""
    return servers.tool("kcat")


def ran(*argv: str, told: str = "") -> str:
    done = subprocess.run(argv, input=told, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(at: str, name: str) -> list[Theirs]:
    """All of a topic, by a plain consumer that knows nothing of us."""
    consumer = Consumer(
        {"bootstrap.servers": at, "group.id": topic(), "enable.partition.eof": True}
    )
    try:
        parts = consumer.list_topics(name, timeout=20).topics[name].partitions
        consumer.assign([TopicPartition(name, number, 0) for number in parts])
        found: list[Theirs] = []
        ended = 0
        while ended < len(parts):
            record = consumer.poll(20)
            assert record is not None
            if record.error() is not None:
                ended += 1
                continue
            headers = dict(record.headers() or [])
            found.append(Theirs(record.key(), record.value(), headers))
        return found
    finally:
        consumer.close()


def written(at: str, name: str, *sent: Theirs) -> None:
    """Write to a topic as a plain producer does."""
    producer = Producer({"bootstrap.servers": at})
    for one in sent:
        producer.produce(name, one.value, one.key, headers=list(one.headers.items()))
    assert producer.flush(20) == 0
    producer.close()


async def test_a_plain_consumer_reads_our_message(broker: KafkaBroker, at: str) -> None:
    source = await listening(broker)
    await broker.publish([golden(source.topic)])
    [got] = read(at, source.topic)
    assert (got.key, got.value) == (b"k", b'{"sku": "tea"}')
    assert got.headers == {
        "ce_id": b"a1",
        "ce_partitionkey": b"k",
        "ce_source": b"/orders",
        "ce_specversion": b"1.0",
        "ce_subject": SUBJECT.encode(),
        "ce_time": b"2026-11-23T09:00:00Z",
        "ce_type": b"com.acme.order.placed.v1",
        "content-type": b"application/json",
        "tenant": b"north",
        "traceparent": TRACE.encode(),
    }


async def test_the_cloudevents_sdk_decodes_our_message(broker: KafkaBroker, at: str) -> None:
    source = await listening(broker)
    await broker.publish([golden(source.topic)])
    [got] = read(at, source.topic)
    headers = {name: value or b"" for name, value in got.headers.items()}
    message = binding.KafkaMessage(headers, got.key, got.value or b"")
    event = binding.from_kafka(message, JSONFormat())
    assert event.get_attributes() == {
        **ATTRIBUTES,
        "datacontenttype": "application/json",
        "partitionkey": "k",
    }
    assert event.get_data() == {"sku": "tea"}


async def received(broker: KafkaBroker, source: Source) -> Message:
    [one] = await fetched(await broker.consume(source), 1)
    return one.message


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_what_the_cloudevents_sdk_encodes_is_ours(
    broker: KafkaBroker, at: str, mode: str
) -> None:
    source = await listening(broker)
    event = CloudEvent(
        {
            **ATTRIBUTES,
            "datacontenttype": "application/json",
            "partitionkey": "k",
            "traceparent": TRACE,
            "region": "eu",
        },
        {"sku": "tea"},
    )
    encode = binding.to_binary if mode == "binary" else binding.to_structured
    sent = encode(event, JSONFormat())
    key = sent.key.encode() if isinstance(sent.key, str) else sent.key
    written(at, source.topic, Theirs(key, sent.value, {**sent.headers}))
    got = await received(broker, source)
    assert (got.id, got.source, got.type) == ("a1", "/orders", "com.acme.order.placed.v1")
    assert (got.subject, got.time) == (SUBJECT, MOMENT.timestamp())
    assert (got.key, got.traceparent, got.headers) == ("k", TRACE, {"ce_region": "eu"})
    assert json.loads(got.body) == {"sku": "tea"}
    assert got.datacontenttype == "application/json"


async def test_kcat_reads_what_we_write(broker: KafkaBroker, at: str, kcat: str) -> None:
    source = await listening(broker)
    await broker.publish([golden(source.topic)])
    shown = ran(kcat, "-C", "-e", "-q", "-b", at, "-t", source.topic, "-f", "%k|%s|%h\n")
    key, value, headers = shown.strip().split("|")
    assert (key, value) == ("k", '{"sku": "tea"}')
    assert {"ce_id=a1", "ce_source=/orders", "ce_specversion=1.0"} <= set(headers.split(","))


async def test_kcat_writes_to_us_and_reads_our_dead_letters(
    broker: KafkaBroker, at: str, kcat: str
) -> None:
    source = await listening(broker)
    headers = ("-H", "ce_id=7", "-H", "ce_source=/them", "-H", "content-type=application/json")
    ran(kcat, "-P", "-b", at, "-t", source.topic, "-k", "tea", *headers, told="{}")
    consumer = await broker.consume(source)
    [one] = await fetched(consumer, 1)
    assert (one.message.id, one.message.source, one.message.body) == ("7", "/them", b"{}")
    assert one.message.key == "tea"
    await consumer.settle([(one, Dead("no box fits"))])
    dead = f"{source.topic}.{source.group}.dead"
    shown = ran(kcat, "-C", "-e", "-q", "-b", at, "-t", dead, "-f", "%s|%h\n")
    value, _, told = shown.strip().partition("|")
    assert value == "{}"
    notes = dict(part.split("=", 1) for part in told.split(","))
    assert (notes["ce_id"], notes[DEAD_REASON]) == ("7", "no box fits")
    assert notes["__dlq.errors.topic"] == source.topic
    assert notes["__dlq.errors.group"] == f"{source.topic}.{source.group}"  # Kafka's name of it
    assert notes["__dlq.errors.message"] == "no box fits"
    assert len(await broker.browse(source, part=Part.DEAD)) == 1


async def test_a_key_goes_to_the_partition_that_java_would_choose(
    broker: KafkaBroker, at: str, kcat: str
) -> None:
    source = await listening(broker, ordered=True)
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        await broker.publish([Message(key, "/us", source.topic, source.topic, b"ours", key)])
    lines = "".join(f"{key}:theirs\n" for key in keys)
    as_java = ("-X", "topic.partitioner=murmur2_random")
    ran(kcat, "-P", "-b", at, "-t", source.topic, "-K", ":", *as_java, told=lines)
    shown = ran(kcat, "-C", "-e", "-q", "-b", at, "-t", source.topic, "-f", "%k %s %p\n")
    found = [line.split() for line in shown.splitlines()]
    ours = {key: number for key, who, number in found if who == "ours"}
    theirs = {key: number for key, who, number in found if who == "theirs"}
    assert ours == theirs
    assert len(set(ours.values())) > 1


async def asked(*command: str) -> list[dict[str, object]]:
    """What a command says, which has an event loop of its own."""
    return await asyncio.to_thread(records, *command)


async def test_a_topic_of_others_is_heard_as_it_is(
    kafka_url: str, at: str, kcat: str, tmp_path: Path
) -> None:
    """Plain JSON without any header: the id is where it lies, so that its effect happens once."""
    name = topic()
    crm = Event(name, Customer, key=lambda one: one.id)
    database = f"sqlite:///{tmp_path / 'billing.db'}"
    service = Service(f"{name}-billing", database=database)
    heard: list[tuple[str, str, str]] = []

    @service.on(crm)
    async def invoice(customer: Customer, context: Context, tx: Transaction) -> None:
        del tx  # it needs the inbox, and so an id by which a message is known again
        heard.append((customer.name, context.message_id, context.source))

    url = f"{kafka_url}?partitions=1"
    async with Bus(url, services=[service]):
        pass  # once it was there, the group hears what comes
    ran(kcat, "-P", "-b", at, "-t", name, told='{"id": "c-1", "name": "Ada", "more": 1}\nno JSON\n')
    ran(kcat, "-P", "-b", at, "-t", name, "-k", "c-2", told='{"id": "c-2", "name": "Bob"}\n')
    async with Bus(url, services=[service]) as bus:
        await bus.idle()
    source = f"kafka:{name}"
    assert heard == [("Ada", f"{name}/0/0", source), ("Bob", f"{name}/0/2", source)]
    [letter] = await asked("dlq", "ls", "--broker", url, "--group", f"{name}-billing")
    assert (letter["id"], letter["sender"]) == (f"{name}/0/1", source)
    assert "JSON is malformed" in str(letter["reason"])


SPRING = {
    "kafka_dlt-original-partition": (2).to_bytes(4, "big"),
    "kafka_dlt-original-offset": (4_711).to_bytes(8, "big"),
    "kafka_dlt-original-timestamp": (1_795_424_400_000).to_bytes(8, "big"),
    "kafka_dlt-original-timestamp-type": b"CreateTime",
    "kafka_dlt-original-consumer-group": b"warehouse",
    "kafka_dlt-exception-fqcn": b"org.springframework.kafka.listener.ListenerExecutionFailed",
    "kafka_dlt-exception-cause-fqcn": b"com.acme.NoBoxFits",
    "kafka_dlt-exception-message": b"no box fits a piano",
    "kafka_dlt-exception-stacktrace": b"com.acme.NoBoxFits: no box fits a piano\n\tat Packer",
}
"""Headers of a dead letter as Spring Kafka's DeadLetterPublishingRecoverer writes them."""


async def test_a_dead_letter_of_spring_is_shown_with_its_origin_and_redriven(
    broker: KafkaBroker, kafka_url: str, at: str
) -> None:
    source = Source(topic(), topic())
    await broker.ensure([source.topic], [source])
    dead = f"{source.topic}.{source.group}.dead"
    headers = {**SPRING, "kafka_dlt-original-topic": source.topic.encode()}
    written(at, dead, Theirs(b"piano", b'{"sku": "piano"}', {**headers}))
    place = f"{source.topic}/2/4711"
    only = ("--broker", kafka_url, "--group", source.group)
    [letter] = await asked("dlq", "ls", *only)
    assert letter["id"] == place
    assert letter["reason"] == "no box fits a piano"
    assert letter["error_type"] == "com.acme.NoBoxFits"
    shown = await asyncio.to_thread(run, "dlq", "show", place, *only, "-o", "json")
    told = json.loads(shown.stdout)["headers"]
    assert told["callcast-source"] == source.topic
    assert told["callcast-group"] == "warehouse"
    assert told["kafka_dlt-original-offset"] == "4711"
    redriven = await asyncio.to_thread(run, "dlq", "redrive", *only)
    assert redriven.exit_code == 0, redriven.stderr
    got = await received(broker, source)
    assert (got.id, got.key, got.body) == (place, "piano", b'{"sku": "piano"}')
    assert await asked("dlq", "ls", *only) == []


async def test_a_group_whose_topics_somebody_deleted_is_looked_at_and_made_whole(
    broker: KafkaBroker, kafka_url: str, at: str
) -> None:
    source = Source(topic(), topic())
    await broker.ensure([source.topic], [source])
    admin = AdminClient({"bootstrap.servers": at})
    whole = f"{source.topic}.{source.group}"
    for deleted in admin.delete_topics([f"{whole}.dead", f"{whole}.redrive"]).values():
        await asyncio.to_thread(deleted.result)
    [row] = await asked("queues", "--broker", kafka_url, "--group", source.group)
    assert (row["ready"], row["dead"]) == (0, 0)
    assert await asked("dlq", "ls", "--broker", kafka_url, "--group", source.group) == []
    lost = {one.detail for one in await broker.differences([source.topic], [source])}
    assert lost == {
        f"group {source}: its topic '{whole}.{part}' is missing" for part in ("dead", "redrive")
    }
    await broker.ensure([source.topic], [source])
    assert await broker.differences([source.topic], [source]) == []
