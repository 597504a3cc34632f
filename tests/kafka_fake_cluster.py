"""What a Kafka cluster in memory keeps, and what it answers."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException

Place = tuple[str, int]


class Came:
    """A message, or the news that a partition was read to its end, as the driver has it."""

    def __init__(self, place: Place, offset: int, error: KafkaError | None = None) -> None:
        self._place = place
        self._offset = offset
        self._error = error
        self.stored_key: bytes | None = None
        self.stored_value: bytes | None = None
        self.stored_headers: list[Any] | None = None
        self.time = 0

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def key(self) -> bytes | None:
        return self.stored_key

    def value(self) -> bytes | None:
        return self.stored_value

    def headers(self) -> list[Any] | None:
        return self.stored_headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time


class Cluster:
    """What the servers keep, and what they are to answer next."""

    def __init__(self) -> None:
        self.logs: dict[Place, dict[int, Came]] = {}
        self.ends: dict[Place, int] = {}
        self.begins: dict[Place, int] = defaultdict(int)
        self.configs: dict[str, dict[str, str]] = {}
        self.committed: dict[str, dict[Place, tuple[int, str]]] = defaultdict(dict)
        self.members: dict[str, list[Any]] = defaultdict(list)
        self.refusals: dict[str, deque[KafkaError]] = defaultdict(deque)
        """By the name of the question: errors that are answered before it is answered well."""
        self.clients = 0
        self.wall = 1_764_000_000.0
        self.changed = threading.Condition()

    def refuse(self, question: str, *codes_: int) -> None:
        """Answer a question with these errors next."""
        self.refusals[question].extend(KafkaError(code, f"{question} refused") for code in codes_)

    def refusal(self, question: str) -> KafkaError | None:
        """The error that a question is answered with now, if any."""
        waiting = self.refusals[question]
        return waiting.popleft() if waiting else None

    def raise_refusal(self, question: str) -> None:
        error = self.refusal(question)
        if error is not None:
            raise KafkaException(error)

    def make(self, topic: str, partitions: int) -> None:
        """Make a topic."""
        for number in range(partitions):
            self.logs[topic, number], self.ends[topic, number] = {}, 0

    def count(self, topic: str) -> int:
        return sum(name == topic for name, _ in self.ends)

    def append(self, place: Place, came: Callable[[Came], None], time: int = 0) -> Came:
        """Store a record."""
        with self.changed:
            record = Came(place, self.ends[place])
            record.time = time or int(self.wall * 1_000)
            came(record)
            self.logs[place][self.ends[place]] = record
            self.ends[place] += 1
            self.changed.notify_all()
        return record

    def skip(self, place: Place, offsets: int = 1) -> None:
        """Leave a hole at the end: a transaction's marker."""
        self.ends[place] += offsets

    def values(self, topic: str) -> list[bytes | None]:
        """The bodies of a topic, partition by partition."""
        return [
            one.value()
            for place, log in self.logs.items()
            if place[0] == topic
            for one in log.values()
        ]


def answered(result: object, error: KafkaError | None = None) -> Future[Any]:
    """An answer that is there."""
    future: Future[Any] = Future()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(KafkaException(error))
    return future
