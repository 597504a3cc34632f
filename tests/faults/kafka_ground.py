"""Parts for tests of Kafka itself: strangers that read and write it, and workers that die.

As a program it is one worker: ``python kafka_ground.py ORDERS``; it takes messages, settles some of
them, says ``full`` and stays until it is killed. Or it asks how far its group is.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, cast

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import Message as Received
from confluent_kafka.admin import AdminClient, ConfigResource  # pyright: ignore[reportPrivateImportUsage] - documented so

from callcast.brokers.kafka import KafkaBroker, options_of
from callcast.brokers.kafka.options import Options
from callcast.core.errors import CallcastError
from callcast.core.outcome import DONE
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock

ANSWER = 10.0
"""Seconds for an answer of the server."""
COMMITTED = 0.5
"""Seconds after which what was settled is committed."""
SOON = "session=2"
"""Options with which the death of a worker is noticed within seconds."""
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


class Orders(msgspec.Struct, frozen=True):
    """What a worker that will be killed is to do."""

    url: str
    source: Source
    count: int
    """Messages to take."""
    done: tuple[str, ...] = ()
    """Ids of those of them that are done."""
    asks: bool = False
    """Take nothing, and ask for the lag again and again until SIGTERM."""


@asynccontextmanager
async def opened(
    url: str, options: str = SOON, kind: type[Options] | None = None
) -> AsyncGenerator[KafkaBroker]:
    """A broker at that URL, closed at the end; `kind` has settings that no URL can say."""
    said = options_of(f"{url}?{options}", {})
    if kind is not None:
        said = kind(**{name: getattr(said, name) for name in Options.__dataclass_fields__})
    broker = KafkaBroker(said, clock=AsyncioClock())
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def worker(orders: Orders) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that has done what it was told and holds the rest; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, msgspec.json.encode(orders), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"full\n", "it ended before it had them"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # else it is left to the GC


async def crashed(orders: Orders) -> None:
    """Have such a worker killed."""
    async with worker(orders):
        pass


def settings(url: str) -> dict[str, str | int | float | bool]:
    """Where a stranger connects to."""
    return {"bootstrap.servers": url.partition("://")[2], "log_level": 2}


async def asked(url: str, question: Callable[[AdminClient], Mapping[Any, Any]]) -> list[Any]:
    """What the futures hold that a stranger's administrator is given."""
    administrator = AdminClient(settings(url))  # kept until the last answer
    return [await asyncio.wrap_future(future) for future in question(administrator).values()]


async def configuration(url: str, topic: str) -> dict[str, str]:
    """The configuration of a topic."""
    wanted = ConfigResource(ConfigResource.Type.TOPIC, topic)  # type: ignore[attr-defined]
    [found] = await asked(url, lambda admin: admin.describe_configs([wanted]))
    return {name: entry.value for name, entry in found.items()}


async def topics(url: str) -> set[str]:
    """The topics that there are."""
    administrator = AdminClient(settings(url))
    return set((await away(administrator.list_topics, timeout=ANSWER)).topics)


def write(
    url: str, topic: str, records: Sequence[tuple[bytes | None, bytes | None, Headers]]
) -> None:
    """Records of a program that knows nothing of callcast: key, value, headers."""
    producer = Producer(settings(url))
    for key, value, headers in records:
        producer.produce(topic, value, key, headers=cast("Any", list(headers)))
    assert producer.flush(ANSWER) == 0
    producer.close()


def write_in_transactions(url: str, topic: str, names: Mapping[str, bool]) -> None:
    """A transaction for each of these values: committed, or aborted."""
    producer = Producer({**settings(url), "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(ANSWER)
    for name, is_committed in names.items():
        producer.begin_transaction()
        producer.produce(topic, name.encode(), partition=0)
        producer.flush(ANSWER)  # an aborted one is stored, too
        end = producer.commit_transaction if is_committed else producer.abort_transaction
        end(ANSWER)
    producer.close()


def read(url: str, topic: str) -> list[Received]:
    """All records that a topic keeps, aborted ones left out; by partition, in their order."""
    reader = Consumer(
        {
            **settings(url),
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    try:
        numbers = reader.list_topics(topic, timeout=ANSWER).topics[topic].partitions
        return [one for number in numbers for one in _read(reader, topic, number)]
    finally:
        reader.close()


def _read(reader: Consumer, topic: str, number: int) -> list[Received]:
    reader.assign([TopicPartition(topic, number, 0)])
    found: list[Received] = []
    while True:
        one = reader.poll(ANSWER)
        assert one is not None, f"{topic}/{number} did not end"
        error = one.error()
        if error is not None:
            if error.name() == "_PARTITION_EOF":
                return found
            assert error.retriable(), error
        else:
            found.append(one)


async def obey(orders: Orders) -> None:
    async with opened(orders.url, "session=2&partitions=1") as broker:
        consumer = await broker.consume(orders.source, lease=600.0)
        held = []
        while len(held) < orders.count:
            held += await consumer.fetch(orders.count - len(held), 1.0)
        await consumer.settle([(one, DONE) for one in held if one.message.id in orders.done])
        await asyncio.sleep(COMMITTED)
        print("full", flush=True)
        await asyncio.Event().wait()


async def ask(orders: Orders) -> None:
    """Ask until it is enough and there is an answer."""
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    async with opened(orders.url) as broker:
        await broker.lag(orders.source)
        print("full", flush=True)
        is_answered = False
        while not (enough.is_set() and is_answered):
            is_answered = False
            with suppress(CallcastError):  # the server is away
                await broker.lag(orders.source)
                is_answered = True
            await asyncio.sleep(0.05)


async def away(act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a stranger's blocking act gives."""
    return await asyncio.to_thread(act, *arguments, **named)


if __name__ == "__main__":
    told = msgspec.json.decode(sys.argv[1], type=Orders)
    asyncio.run(ask(told) if told.asks else obey(told))
