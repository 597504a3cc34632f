"""Reading partitions from here to there without taking part in a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from callcast.brokers.kafka.codes import PARTITION_END, TIMED_OUT
from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.records import Received, record_of
from callcast.brokers.kafka.wire import Record
from callcast.ports.clock import Clock

READ_BATCH = 500
READ_WAIT = 5.0
"""Seconds for what was asked for to be read."""


class Harvest:
    """What is read of some partitions, until each has its share."""

    def __init__(self, starts: Mapping[Place, int], ends: Mapping[Place, int], limit: int) -> None:
        self.found: dict[Place, list[Record]] = {place: [] for place in starts}
        self.missing: set[Place] = set(starts)
        self._ends = ends
        self._limit = limit

    def take(self, batch: Sequence[Received]) -> None:
        """Take in what has come; raises the driver's error."""
        for received in batch:
            place = (received.topic() or "", received.partition() or 0)
            error = received.error()
            if error is None:
                if place in self.missing:
                    self._add(place, received)
            elif error.code() == PARTITION_END:
                self.missing.discard(place)  # markers, or what was compacted away, end it
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # it reads in no group
                raise KafkaException(error)

    def _add(self, place: Place, received: Received) -> None:
        offset, end = received.offset() or 0, self._ends[place]
        records = self.found[place]
        if offset < end:
            records.append(record_of(received))
        if offset + 1 >= end or len(records) >= self._limit:
            self.missing.discard(place)


class Reader:
    """One consumer of the driver, made when it is first needed. Blocks; of one thread."""

    def __init__(self, options: Options, faults: Faults, clock: Clock) -> None:
        self._options = options
        self._faults = faults
        self._clock = clock
        self._consumer: Consumer | None = None
        self._read_before: set[str] = set()

    def read(
        self, starts: Mapping[Place, int], ends: Mapping[Place, int], limit: int
    ) -> dict[Place, list[Record]]:
        """Records from each start, at most `limit` of each partition, and none from its end on."""
        consumer = self._knowing({topic for topic, _ in starts})
        harvest = Harvest(starts, ends, limit)
        consumer.assign([TopicPartition(*place, at) for place, at in starts.items()])
        end = self._clock.now() + READ_WAIT
        try:
            while harvest.missing and self._clock.now() < end:
                first = consumer.poll(0.5)
                if first is not None:
                    harvest.take([first, *consumer.consume(READ_BATCH, 0)])
        finally:
            consumer.unassign()
        if harvest.missing:
            raise KafkaException(KafkaError(TIMED_OUT))
        return harvest.found

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close()

    def _knowing(self, topics: set[str]) -> Consumer:
        """The consumer, which knows these topics: else it finds leaders only after a second."""
        if self._consumer is None:
            self._consumer = Consumer({**self._options.reader, "error_cb": self._faults.note})
        for topic in topics - self._read_before:
            self._consumer.list_topics(topic, timeout=READ_WAIT)
        self._read_before |= topics
        return self._consumer
