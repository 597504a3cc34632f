"""RabbitMQ with programs that nobody here wrote: plain pika, rabbitmqadmin, the CloudEvents SDK."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pika
import pytest
from cloudevents.core.bindings import amqp
from cloudevents.core.bindings import rabbitmq as binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import fetched, listening, opened, stranger
from servers import missing, need

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.message import Message
from callcast.core.outcome import DEAD_REASON, Dead
from callcast.ports.broker import Part, Source

pytestmark = pytest.mark.timeout(60)

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


def golden(to: str) -> Message:
    return Message(
        "a1",
        "/orders",
        "com.acme.order.placed.v1",
        to,
        b'{"sku": "tea"}',
        time=MOMENT.timestamp(),
        subject=SUBJECT,
        traceparent=TRACE,
        headers={"tenant": "north"},
    )


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncGenerator[RabbitBroker]:
    async with opened(rabbitmq_url) as one:
        yield one


@pytest.fixture
def channel(rabbitmq_url: str) -> Generator[BlockingChannel]:
    with stranger(rabbitmq_url) as one:
        yield one


async def published(
    broker: RabbitBroker, channel: BlockingChannel
) -> tuple[pika.BasicProperties, bytes]:
    """Our golden message, as a stranger gets it who bound a queue with ``#``."""
    source = await listening(broker)
    declared = channel.queue_declare("", exclusive=True)
    channel.queue_bind(declared.method.queue, source.topic, "#")
    await broker.publish([golden(source.topic)])
    _, properties, body = channel.basic_get(declared.method.queue, auto_ack=True)
    assert properties is not None
    assert body is not None
    return properties, body


async def test_plain_pika_reads_our_message(broker: RabbitBroker, channel: BlockingChannel) -> None:
    properties, body = await published(broker, channel)
    assert body == b'{"sku": "tea"}'
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.headers == {
        "ce-id": "a1",
        "ce-source": "/orders",
        "ce-specversion": "1.0",
        "ce-subject": SUBJECT,
        "ce-time": "2026-11-23T09:00:00Z",
        "ce-type": "com.acme.order.placed.v1",
        "tenant": "north",
        "traceparent": TRACE,
    }


async def test_the_cloudevents_sdk_decodes_our_message(
    broker: RabbitBroker, channel: BlockingChannel
) -> None:
    properties, body = await published(broker, channel)
    message = binding.RabbitMQMessage(dict(properties.headers or {}), properties.content_type, body)
    event = binding.from_rabbitmq(message, JSONFormat())
    assert event.get_attributes() == {**ATTRIBUTES, "datacontenttype": "application/json"}
    assert event.get_data() == {"sku": "tea"}


async def received(broker: RabbitBroker, source: Source) -> Message:
    [one] = await fetched(await broker.consume(source), 1)
    return one.message


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_what_the_cloudevents_sdk_encodes_is_ours(
    broker: RabbitBroker, channel: BlockingChannel, mode: str
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
    properties = pika.BasicProperties(content_type=sent.content_type, headers=sent.headers)
    channel.basic_publish(source.topic, "whatever.they.like", sent.body, properties)
    got = await received(broker, source)
    assert (got.id, got.source, got.type) == ("a1", "/orders", "com.acme.order.placed.v1")
    assert (got.subject, got.time) == (SUBJECT, MOMENT.timestamp())
    assert (got.key, got.traceparent, got.headers) == ("k", TRACE, {"ce-region": "eu"})
    assert json.loads(got.body) == {"sku": "tea"}
    assert got.datacontenttype == "application/json"


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:"])
async def test_what_amqp_1_clients_send_is_read(
    broker: RabbitBroker, channel: BlockingChannel, prefix: str
) -> None:
    """RabbitMQ turns their application properties into headers, times too."""
    source = await listening(broker)
    headers = {
        f"{prefix}{name}": MOMENT if name == "time" else value for name, value in ATTRIBUTES.items()
    }
    channel.basic_publish(source.topic, "", b"{}", pika.BasicProperties(headers=headers))
    got = await received(broker, source)
    assert (got.id, got.source, got.subject) == ("a1", "/orders", SUBJECT)
    assert got.time == MOMENT.timestamp()


async def test_the_golden_vector_of_amqp_1_is_read_with_its_native_types(
    broker: RabbitBroker, channel: BlockingChannel
) -> None:
    source = await listening(broker)
    event = CloudEvent({**ATTRIBUTES, "datacontenttype": "application/json"}, {"sku": "tea"})
    sent = amqp.to_binary(event, JSONFormat())
    assert sent.application_properties["cloudEvents_time"] == 1_795_424_400_000
    properties = pika.BasicProperties(
        content_type=str(sent.properties["content-type"]), headers=sent.application_properties
    )
    channel.basic_publish(source.topic, "", sent.application_data, properties)
    got = await received(broker, source)
    assert (got.id, got.source, got.type) == ("a1", "/orders", "com.acme.order.placed.v1")
    assert (got.subject, got.time) == (SUBJECT, MOMENT.timestamp())
    assert json.loads(got.body) == {"sku": "tea"}


@pytest.fixture
def rabbitmqadmin(request: pytest.FixtureRequest, rabbitmq_url: str, tmp_path: Path) -> list[str]:
    """The command that the server's management plugin itself hands out."""
    api = need(request, "rabbitmq_url").management_url
    if not api:
        missing("no management plugin is known of a server given from outside")
    parts = urlsplit(api)
    where = f"http://{parts.hostname}:{parts.port}/cli/rabbitmqadmin"
    with urllib.request.urlopen(where, timeout=20) as answer:
        (tmp_path / "rabbitmqadmin").write_bytes(answer.read())
    vhost = unquote(urlsplit(rabbitmq_url).path.removeprefix("/"))
    return [
        *(sys.executable, "-W", "ignore", str(tmp_path / "rabbitmqadmin")),
        *("-H", str(parts.hostname), "-P", str(parts.port), "-V", vhost),
        *("-u", str(parts.username), "-p", str(parts.password)),
    ]


def ran(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_rabbitmqadmin_writes_to_us_and_reads_our_dead_letters(
    broker: RabbitBroker, rabbitmqadmin: list[str]
) -> None:
    source = await listening(broker)
    properties = {
        "content_type": "application/json",
        "headers": {"ce-id": "7", "ce-source": "/them"},
    }
    said = ran(
        *rabbitmqadmin,
        *("publish", f"exchange={source.topic}", "routing_key=any", "payload={}"),
        f"properties={json.dumps(properties)}",
    )
    assert "Message published" in said
    consumer = await broker.consume(source)
    [one] = await fetched(consumer, 1)
    assert (one.message.id, one.message.source, one.message.body) == ("7", "/them", b"{}")
    await consumer.settle([(one, Dead("no box fits"))])
    shown = ran(*rabbitmqadmin, "-f", "raw_json", "get", f"queue={source}/dead")
    [letter] = json.loads(shown)
    assert letter["payload"] == "{}"
    assert letter["properties"]["headers"]["ce-id"] == "7"
    assert letter["properties"]["headers"][DEAD_REASON] == "no box fits"
    [death] = letter["properties"]["headers"]["x-death"]
    assert (death["queue"], death["exchange"]) == (str(source), source.topic)
    assert (death["reason"], death["count"]) == ("rejected", 1)
    assert len(await broker.browse(source, part=Part.DEAD)) == 1


async def test_who_binds_to_an_ordered_event_gets_all_of_it(
    broker: RabbitBroker, channel: BlockingChannel
) -> None:
    source = await listening(broker, ordered=True, lanes=16)
    declared = channel.queue_declare("", exclusive=True)
    channel.queue_bind(declared.method.queue, source.topic, "#")
    await broker.publish(
        [Message(f"m{n}", "/us", source.topic, source.topic, b"{}", f"k{n}") for n in range(40)]
    )
    found = [channel.basic_get(declared.method.queue, auto_ack=True)[1] for _ in range(40)]
    keys = {(one.headers or {})["ce-partitionkey"] for one in found if one is not None}
    assert len(keys) == 40
