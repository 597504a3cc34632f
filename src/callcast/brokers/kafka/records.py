"""From what the driver received to a value."""

from __future__ import annotations

from typing import cast

from confluent_kafka import Message as Received

from callcast.brokers.kafka.wire import Headers, Record

__all__ = ["Received", "record_of"]


def record_of(received: Received) -> Record:
    """What was received, as a value."""
    kind, millis = received.timestamp()
    return Record(
        topic=received.topic() or "",
        partition=received.partition() or 0,
        offset=received.offset() or 0,
        time=millis / 1_000 if kind else 0.0,
        key=received.key(),
        value=received.value(),
        # A list of pairs of text and bytes, whatever a producer may have been given.
        headers=cast("Headers", received.headers() or []),
    )
