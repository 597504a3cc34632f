"""How far groups are, asked without taking part in them.

The driver's administrator could be asked, too. But told that a group's coordinator has moved, it
ends the process (librdkafka issue 5040): so each group is asked over a consumer of its own, which
never subscribes to anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.options import Options

ASK = 5.0
"""Seconds for an answer."""
HASTE = {"retry.backoff.ms": 10, "retry.backoff.max.ms": 200}
"""A new consumer has not found its coordinator when it is asked: it tries again so soon."""
GROUPS_MAX = 8
"""Groups whose consumers are kept for the next question; one has some threads of the driver."""


class Positions:
    """Committed offsets of any group. Blocks; of one thread."""

    def __init__(self, options: Options, faults: Faults) -> None:
        self._options = options
        self._faults = faults
        self._consumers: OrderedDict[str, Consumer] = OrderedDict()  # asked last is last

    def committed(self, group: str, places: Sequence[Place]) -> dict[Place, tuple[int, str]]:
        """Where this group is, with the metadata; without the partitions that have no position."""
        asked = [TopicPartition(*place) for place in places]
        if not asked:
            return {}
        consumer = self._of(group)
        consumer.poll(0)  # tells what goes wrong with its connections
        found: dict[Place, tuple[int, str]] = {}
        for part in consumer.committed(asked, timeout=ASK):
            if part.error is not None:
                raise KafkaException(part.error)
            if part.offset >= 0:
                found[part.topic, part.partition] = part.offset, part.metadata or ""
        return found

    def close(self) -> None:
        """Disconnect."""
        while self._consumers:
            self._consumers.popitem()[1].close()

    def _of(self, group: str) -> Consumer:
        consumer = self._consumers.pop(group, None)
        if consumer is None:
            if len(self._consumers) >= GROUPS_MAX:
                self._consumers.popitem(last=False)[1].close()
            settings = {**self._options.reader, "error_cb": self._faults.note}
            consumer = Consumer({**settings, **HASTE, "group.id": group})
        self._consumers[group] = consumer
        return consumer
