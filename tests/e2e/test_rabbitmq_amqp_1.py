"""RabbitMQ with a client of AMQP 1.0, which speaks another protocol than we do: Qpid Proton."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import servers
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import fetched, is_at_least, listening, opened, stranger

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.message import Message

pytestmark = pytest.mark.timeout(60)

NATIVE = (4, 0)
"""From this version on RabbitMQ speaks AMQP 1.0 without a plugin."""
MOMENT = datetime(2026, 11, 23, 9, tzinfo=UTC).timestamp()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = '{"sku": "tea"}'
ATTRIBUTES = {
    "id": "a1",
    "source": "/orders",
    "specversion": "1.0",
    "subject": 'Euro € "x" %',
    "type": "com.acme.order.placed.v1",
}
CLIENT = """
import json, sys
from proton import Message, timestamp
from proton.utils import BlockingConnection

told = json.load(sys.stdin)
connection = BlockingConnection(
    told["url"], timeout=20, user=told["user"], password=told["password"],
    allowed_mechs="PLAIN", virtual_host=told["virtual_host"],
)
if told["act"] == "send":
    properties = dict(told["properties"])
    for name, milliseconds in told["times"].items():
        properties[name] = timestamp(milliseconds)
    sent = Message(
        body=told["body"].encode(), content_type="application/json", properties=properties,
        durable=True, inferred=True,
    )
    connection.create_sender(told["address"]).send(sent)
else:
    receiver = connection.create_receiver(told["address"], credit=1)
    got = receiver.receive(20)
    receiver.accept()
    print(json.dumps({
        "body": bytes(got.body).decode(), "content_type": str(got.content_type),
        "durable": got.durable, "properties": dict(got.properties),
    }))
connection.close()
"""
Ask = Callable[..., str]


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncGenerator[RabbitBroker]:
    async with opened(rabbitmq_url) as one:
        yield one


@pytest.fixture
def channel(rabbitmq_url: str) -> Generator[BlockingChannel]:
    with stranger(rabbitmq_url) as one:
        yield one


@pytest.fixture(scope="session")
def python() -> str:
    """One that has the client, from Debian's package."""
    return servers.tool("proton")


@pytest.fixture
def client(rabbitmq_url: str, channel: BlockingChannel, python: str) -> Ask:
    """Have the client send, or receive one; what it prints."""
    version = str(channel.connection._impl.server_properties["version"])
    if not is_at_least(version, NATIVE):
        servers.missing(f"RabbitMQ {version} speaks AMQP 1.0 only with a plugin")
    parts = urlsplit(rabbitmq_url)
    where = {
        "url": f"amqp://{parts.hostname}:{parts.port}",
        "user": parts.username,
        "password": parts.password,
        "virtual_host": f"vhost:{unquote(parts.path.removeprefix('/'))}",
    }

    def ask(act: str, address: str, **more: object) -> str:
        told = json.dumps({**where, "act": act, "address": address, **more})
        argv = [python, "-c", CLIENT]
        done = subprocess.run(
            argv, input=told, capture_output=True, text=True, timeout=40, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:"])
async def test_what_a_client_of_amqp_1_sends_is_ours(
    broker: RabbitBroker, client: Ask, prefix: str
) -> None:
    source = await listening(broker)
    properties = {f"{prefix}{name}": value for name, value in ATTRIBUTES.items()}
    await asyncio.to_thread(
        client,
        "send",
        f"/exchanges/{source.topic}/any",
        body=BODY,
        properties={**properties, "traceparent": TRACE, "tenant": "north"},
        times={f"{prefix}time": int(MOMENT * 1_000)},
    )
    [one] = await fetched(await broker.consume(source), 1)
    got = one.message
    assert (got.id, got.source, got.type) == ("a1", "/orders", "com.acme.order.placed.v1")
    assert (got.subject, got.time) == (ATTRIBUTES["subject"], MOMENT)
    assert (got.traceparent, got.headers) == (TRACE, {"tenant": "north"})
    assert (got.body, got.datacontenttype) == (BODY.encode(), "application/json")


async def test_a_client_of_amqp_1_reads_our_message(
    broker: RabbitBroker, client: Ask, channel: BlockingChannel
) -> None:
    source = await listening(broker)
    queue = channel.queue_declare("", durable=True).method.queue
    channel.queue_bind(queue, source.topic, "#")
    ours = Message(
        "a1",
        "/orders",
        "com.acme.order.placed.v1",
        source.topic,
        BODY.encode(),
        time=MOMENT,
        subject=ATTRIBUTES["subject"],
        traceparent=TRACE,
        headers={"tenant": "north"},
    )
    try:
        await broker.publish([ours])
        shown = await asyncio.to_thread(client, "receive", f"/queues/{quote(queue, safe='')}")
    finally:
        channel.queue_delete(queue)
    got: Mapping[str, Any] = json.loads(shown)
    assert (got["body"], got["content_type"], got["durable"]) == (BODY, "application/json", True)
    assert got["properties"] == {
        **{f"ce-{name}": value for name, value in ATTRIBUTES.items()},
        "ce-time": "2026-11-23T09:00:00Z",
        "tenant": "north",
        "traceparent": TRACE,
    }
