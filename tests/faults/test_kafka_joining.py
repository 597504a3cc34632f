"""Workers that join a Kafka group while one of its members does not answer, on a real server."""

from __future__ import annotations

import secrets

import pytest
from confluent_kafka import Consumer

from callcast.brokers.kafka import KafkaBroker, options_of
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(120)

SILENT = 13
"""Seconds for which a member may be silent: longer than joining waits."""


async def test_a_worker_that_starts_beside_one_that_was_killed_gets_its_messages_later(
    kafka_url: str,
) -> None:
    where = f"joining.t{secrets.token_hex(4)}"
    broker = KafkaBroker(options_of(f"{kafka_url}?partitions=1", {}), clock=AsyncioClock())
    source = Source(where, "only")
    await broker.ensure([], [source])
    message = Message(id="a", source="test", type=where, topic=where, body=b"a")
    dead = Consumer(
        {
            "bootstrap.servers": kafka_url.removeprefix("kafka://"),
            "group.id": f"{where}.only",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6_000,
            "max.poll.interval.ms": SILENT * 1_000,
            "enable.auto.commit": False,
        }
    )
    try:
        dead.subscribe([where])
        while not dead.assignment():
            dead.poll(0.1)
        # From now on it does not poll: the group waits for it before it takes in anybody else.
        worker = await broker.consume(source)
        await broker.publish([message])
        [one] = await worker.fetch(1, 3 * SILENT)
        assert one.message.id == "a"
        await worker.settle([(one, DONE)])
    finally:
        await broker.close()
        dead.close()
