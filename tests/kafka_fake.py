"""The driver's clients of a Kafka cluster in memory: to fail, answer and rebalance at will."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import (
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from kafka_fake_cluster import Came, Cluster, Place, answered

from callcast.brokers.kafka import codes, link, positions, reading, sender, share
from callcast.brokers.kafka.asking import EARLIEST, LATEST


class FakeAdmin:
    """The driver's administrator."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def poll(self, timeout: float) -> int:
        return 0

    def list_topics(self, topic: str, *, timeout: float) -> None:
        self._cluster.raise_refusal("list_topics")

    def create_topics(self, new_topics: Iterable[Any], **_: object) -> dict[str, Future[None]]:
        answers: dict[str, Future[None]] = {}
        for new in new_topics:
            error = self._cluster.refusal("create_topics")
            answers[new.topic] = answered(None, error)
            if error is None:
                self._cluster.make(new.topic, new.num_partitions)
                self._cluster.configs[new.topic] = dict(new.config)
        return answers

    def delete_topics(self, topics: Iterable[str]) -> dict[str, Future[None]]:
        answers: dict[str, Future[None]] = {}
        for topic in topics:
            error = self._cluster.refusal("delete_topics")
            answers[topic] = answered(None, error)
            if error is None:
                for place in [place for place in self._cluster.ends if place[0] == topic]:
                    del self._cluster.ends[place], self._cluster.logs[place]
        return answers

    def describe_topics(self, topics: Any, **_: object) -> dict[str, Future[Any]]:
        answers: dict[str, Future[Any]] = {}
        for topic in topics.topic_names:
            count = self._cluster.count(topic)
            missing = None if count else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            error = self._cluster.refusal("describe_topics") or missing
            answers[topic] = answered(SimpleNamespace(partitions=list(range(count))), error)
        return answers

    def list_offsets(self, wanted: Mapping[TopicPartition, Any], **_: object) -> dict[Any, Any]:
        answers: dict[TopicPartition, Future[Any]] = {}
        for part, spec in wanted.items():
            place = (part.topic, part.partition)
            offset = self._offset(place, spec)
            error = self._cluster.refusal("list_offsets")
            answers[part] = answered(SimpleNamespace(offset=offset), error)
        return answers

    def _offset(self, place: Place, spec: Any) -> int:
        if spec is LATEST:
            return self._cluster.ends[place]
        if spec is EARLIEST:
            return self._cluster.begins[place]
        found = (at for at, one in self._cluster.logs[place].items() if one.time >= spec._value)
        return next(found, -1)

    def alter_consumer_group_offsets(self, asked: Sequence[Any], **_: object) -> dict[str, Any]:
        [wanted] = asked
        error = self._cluster.refusal("alter_consumer_group_offsets")
        part_error = self._cluster.refusal("alter_one")
        answers: list[TopicPartition] = []
        for part in wanted.topic_partitions:
            place = (part.topic, part.partition)
            if error is None and part_error is None:
                self._cluster.committed[wanted.group_id][place] = (part.offset, "")
            answers.append(SimpleNamespace(error=part_error))  # type: ignore[arg-type]
        found = SimpleNamespace(topic_partitions=answers)
        return {wanted.group_id: answered(found, error)}

    def delete_consumer_groups(self, groups: Sequence[str], **_: object) -> dict[str, Any]:
        error = self._cluster.refusal("delete_consumer_groups")
        for group in groups:
            self._cluster.committed.pop(group, None)
        return {group: answered(None, error) for group in groups}

    def describe_consumer_groups(self, groups: Sequence[str], **_: object) -> dict[str, Any]:
        error = self._cluster.refusal("describe_consumer_groups")
        answers: dict[str, Future[Any]] = {}
        for group in groups:
            members = [
                SimpleNamespace(assignment=SimpleNamespace(topic_partitions=list(one.positions)))
                for one in self._cluster.members[group]
            ]
            said = SimpleNamespace(state=ConsumerGroupState.STABLE, members=members)
            answers[group] = answered(said, error)
        return answers

    def incremental_alter_configs(self, resources: Sequence[Any], **_: object) -> dict[Any, Any]:
        error = self._cluster.refusal("incremental_alter_configs")
        for one in resources:
            for entry in one.incremental_configs:
                self._cluster.configs.setdefault(one.name, {})[entry.name] = entry.value
        return {one: answered(None, error) for one in resources}

    def delete_records(self, parts: Sequence[TopicPartition], **_: object) -> dict[Any, Any]:
        error = self._cluster.refusal("delete_records")
        for part in parts:
            place = (part.topic, part.partition)
            self._cluster.begins[place] = part.offset
            log = self._cluster.logs[place]
            for offset in [at for at in log if at < part.offset]:
                del log[offset]
        return {part: answered(None, error) for part in parts}


class FakeProducer:
    """The driver's producer: what was taken is reported by the next poll."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._reports: deque[tuple[Any, KafkaError | None, Came | None]] = deque()
        self._news = threading.Event()
        cluster.clients += 1

    def produce(self, topic: str, value: Any, key: Any, partition: int, **more: Any) -> None:
        if self._cluster.refusals["full"]:
            self._cluster.refusals["full"].popleft()
            raise BufferError
        self._cluster.raise_refusal("produce")
        error = self._cluster.refusal("store")
        stored = None
        if error is None:
            if partition < 0:
                partition = zlib.crc32(key or b"") % self._cluster.count(topic)

            def fill(came: Came) -> None:
                came.stored_key, came.stored_value = key, value
                came.stored_headers = list(more["headers"])

            stored = self._cluster.append((topic, partition), fill, more["timestamp"])
        self._reports.append((more["on_delivery"], error, stored))
        self._news.set()

    def poll(self, timeout: float) -> int:
        self._news.wait(timeout)
        self._news.clear()
        while self._reports:
            report, error, stored = self._reports.popleft()
            report(error, stored)
        return 0

    def __len__(self) -> int:
        return len(self._reports)

    def flush(self, timeout: float) -> int:
        self.poll(0)
        return 0

    def close(self) -> None:
        self._cluster.clients -= 1


class FakeConsumer:
    """The driver's consumer: alone in its group, it is given everything at its first poll."""

    def __init__(self, cluster: Cluster, config: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self.config = config
        self.group = config["group.id"]
        self.positions: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self._told: dict[Place, int] = {}  # where the end of a partition was told
        self._topics: list[str] = []
        self._calls: dict[str, Callable[..., None]] = {}
        self.is_assigned = False
        self.closed_with: set[Place] | None = None
        """What was left to be given up when it closed."""
        cluster.clients += 1

    # Alone

    def assign(self, parts: Iterable[TopicPartition]) -> None:
        self._told.clear()
        self.positions = {(part.topic, part.partition): part.offset for part in parts}

    def unassign(self) -> None:
        self.positions = {}

    def list_topics(self, topic: str, *, timeout: float) -> None:
        self._cluster.raise_refusal("list_topics")

    # In a group

    def subscribe(self, topics: Sequence[str], **calls: Callable[..., None]) -> None:
        self._cluster.raise_refusal("subscribe")
        self._topics, self._calls = list(topics), calls
        self._cluster.members[self.group].append(self)

    def _rebalance(self) -> None:
        self.is_assigned = True
        parts = [TopicPartition(*place) for place in self._cluster.ends if place[0] in self._topics]
        self._calls["on_assign"](self, parts)

    def incremental_assign(self, parts: Iterable[TopicPartition]) -> None:
        for part in parts:
            place = (part.topic, part.partition)
            self.positions[place] = max(part.offset, self._cluster.begins[place])

    def incremental_unassign(self, parts: Iterable[TopicPartition]) -> None:
        for part in parts:
            if (part.topic, part.partition) not in self.positions:
                raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "not assigned"))
            del self.positions[part.topic, part.partition]

    def revoke(self, *places: Place, is_lost: bool = False) -> None:
        """Take partitions away, as a poll would."""
        parts = [TopicPartition(*place) for place in places]
        self._calls["on_lost" if is_lost else "on_revoke"](self, parts)

    def pause(self, parts: Iterable[TopicPartition]) -> None:
        self.paused |= {(part.topic, part.partition) for part in parts}

    def resume(self, parts: Iterable[TopicPartition]) -> None:
        self.paused -= {(part.topic, part.partition) for part in parts}

    def committed(self, parts: Iterable[TopicPartition], **_: object) -> list[TopicPartition]:
        self._cluster.raise_refusal("committed" if self._topics else "positions")
        known = self._cluster.committed[self.group]
        return [
            TopicPartition(
                part.topic, part.partition, *known.get((part.topic, part.partition), (-1001,))
            )
            for part in parts
        ]

    def get_watermark_offsets(self, part: TopicPartition, timeout: float) -> tuple[int, int]:
        self._cluster.raise_refusal("watermarks")
        place = (part.topic, part.partition)
        return self._cluster.begins[place], self._cluster.ends[place]

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> list[Any]:
        self._cluster.raise_refusal("commit")
        answers: list[Any] = []
        for part in offsets:
            error = self._cluster.refusal("commit_one")
            place = (part.topic, part.partition)
            if error is None:
                self._cluster.committed[self.group][place] = (part.offset, part.metadata or "")
            answers.append(SimpleNamespace(topic=part.topic, partition=part.partition, error=error))
        return answers

    # Both

    def poll(self, seconds: float) -> Came | None:
        if self._topics and not self.is_assigned:
            self._rebalance()
            return None
        if not self.positions:
            return None
        error = self._cluster.refusal("poll")
        if error is not None:
            return Came(next(iter(self.positions), ("", 0)), 0, error)
        with self._cluster.changed:
            found = self._next()
            if found is None:
                self._cluster.changed.wait(min(seconds, 0.01))
        return found or self._next()

    def consume(self, count: int, timeout: float) -> list[Came]:
        found: list[Came] = []
        while len(found) < count and (came := self._next()) is not None:
            found.append(came)
        return found

    def _next(self) -> Came | None:
        for place, at in self.positions.items():
            if place in self.paused or place not in self._cluster.ends:
                continue
            found = [
                (offset, one) for offset, one in self._cluster.logs[place].items() if offset >= at
            ]
            if found:
                self.positions[place] = found[0][0] + 1
                return found[0][1]
            end = self._cluster.ends[place]
            if self._told.get(place) != end:
                self._told[place] = self.positions[place] = end
                return Came(place, end, KafkaError(codes.PARTITION_END))
        return None

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(*place) for place in self.positions]

    def unsubscribe(self) -> None:
        if self.positions and self._calls:
            self.revoke(*self.positions)
        self._topics = []

    def close(self) -> None:
        self._cluster.clients -= 1
        self._cluster.raise_refusal("close")
        self.closed_with = set(self.positions)
        if self.positions and self._calls:
            self.revoke(*self.positions)
        if self in self._cluster.members[self.group]:
            self._cluster.members[self.group].remove(self)


def install(patch: pytest.MonkeyPatch) -> Cluster:
    """Have all clients of the driver be those of one new cluster."""
    cluster = Cluster()
    patch.setattr(link, "administrator", lambda _: FakeAdmin(cluster))
    patch.setattr(sender, "Producer", lambda _: FakeProducer(cluster))
    for module in (positions, reading, share):
        patch.setattr(module, "Consumer", lambda config: FakeConsumer(cluster, config))
    return cluster
