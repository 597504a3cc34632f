"""The connections of one broker: an administrator's, a producer's, and a reader's without a group.

All questions have an answer within `ASK` seconds, or raise `Unavailable` with one sentence on what
was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar
from zlib import crc32

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.cimpl import NewTopic

from callcast.brokers.kafka.answers import Answers
from callcast.brokers.kafka.asking import (
    EARLIEST,
    LATEST,
    Administrator,
    Spec,
    administrator,
    at_time,
)
from callcast.brokers.kafka.codes import NO_COORDINATOR, TIMED_OUT
from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.office import Office
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.positions import Positions
from callcast.brokers.kafka.reading import READ_BATCH, Reader
from callcast.brokers.kafka.sender import Sender
from callcast.brokers.kafka.wire import Record
from callcast.core.errors import Unavailable
from callcast.ports.clock import Clock

R = TypeVar("R")

ASK = 5.0
"""Seconds for an answer of the server."""
MAKE = 30.0
"""Seconds for topics to be made: a server makes the logs of their partitions one by one."""
AGAIN = 0.02
"""Seconds before a question is asked again whose answer is that the cluster is not ready."""
SIDE_BY_SIDE = 4
"""Groups that are asked at the same time for how far they are."""
COORDINATOR = 15.0
"""Seconds in which a group's coordinator is elected and has read what it knows of the group."""
AGAIN_GROUP = 0.1
_MOVING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    NO_COORDINATOR,
}
"""A group whose coordinator is being elected, or has just moved."""
_PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
"""A topic that was just made, or whose leader has changed or was started anew."""


class Link:
    """Opened with the first use of the broker; `close` ends all of it."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options: Options = options
        self.clock: Clock = clock
        self.faults: Faults = Faults(options, clock)
        self.office: Office = Office()
        self._answers = Answers(self.faults, clock)
        self._reader = Reader(options, self.faults, clock)  # of the office's thread
        # A thread each: a question waits there for its answer, and others need not.
        self._clerks: dict[int, tuple[Office, Positions]] = {}
        self._is_closed = False
        self._admin: Administrator | None = administrator(
            {**options.client, "error_cb": self.faults.note}
        )
        # Made at once: a producer needs half a second until it is known to the server.
        self.sender: Sender = Sender({**options.producer, "error_cb": self.faults.note})
        self._partitions: dict[str, int] = {}

    async def close(self) -> None:
        """End all connections. Idempotent."""

        def end() -> None:
            self.sender.close()
            self._reader.close()
            self._admin = None

        self._is_closed = True
        for office, positions in self._clerks.values():
            await office.close(positions.close)
        await self.office.close(end)

    # Topics

    async def partitions(self, topics: Sequence[str], *, anew: bool = False) -> Mapping[str, int]:
        """How many partitions each of these topics has, of those that there are."""
        unknown = [topic for topic in topics if anew or topic not in self._partitions]
        if unknown:
            described = self._client.describe_topics(TopicCollection(unknown), request_timeout=ASK)
            for topic, future in described.items():
                try:
                    found = await self.answer(future)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise self.faults.of(f"look at topic {topic!r}", error) from error
                    self._partitions.pop(topic, None)
                else:
                    self._partitions[topic] = len(found.partitions)
        return {topic: self._partitions[topic] for topic in topics if topic in self._partitions}

    async def create(self, topics: Sequence[NewTopic]) -> list[str]:
        """Make topics; the names of those that were not there already, which is no error."""
        if not topics:
            return []
        made: list[str] = []
        for topic, future in self._client.create_topics(
            list(topics), request_timeout=MAKE, operation_timeout=MAKE
        ).items():
            try:
                await self.answer(future)
                made.append(topic)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self.faults.of(f"create topic {topic!r}", error) from error
        await self._until_there([topic.topic for topic in topics])
        return made

    async def _until_there(self, names: Sequence[str]) -> None:
        """Wait until what was made is known: a cluster tells its nodes one after the other."""
        limit = self.clock.now() + MAKE
        while len(await self.partitions(names, anew=True)) < len(names):
            if self.clock.now() >= limit:
                raise Unavailable(f"{names[0]!r} was created, and is not there {MAKE} s later")
            await self.clock.sleep(0.02)

    @property
    def admin(self) -> Administrator:
        """The administrator's connection."""
        return self._client

    @property
    def _client(self) -> Administrator:
        if self._admin is None:
            raise Unavailable("the broker is closed")
        return self._admin

    # Offsets

    async def ends(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Where each partition ends now: the offset of the next record."""
        return await self._offsets(places, LATEST)

    async def beginnings(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The first offset that is kept of each partition."""
        return await self._offsets(places, EARLIEST)

    async def offsets_at(self, places: Sequence[Place], wall: float) -> Mapping[Place, int]:
        """The first offset of each partition whose record is not older; -1 where there is none."""
        return await self._offsets(places, at_time(wall))

    async def _offsets(self, places: Sequence[Place], spec: Spec) -> Mapping[Place, int]:
        offsets: dict[Place, int] = {}
        limit = self.clock.now() + ASK
        left = list(places)
        while left:
            found, trouble = await self._offsets_once(left, spec)
            offsets |= found
            left = [place for place in left if place not in found]
            if trouble is not None:
                code = trouble.args[0].code()
                if code not in _PASSING or self.clock.now() >= limit:
                    raise self.faults.of(f"look at {left[0][0]}/{left[0][1]}", trouble)
                await self.clock.sleep(AGAIN)
                await self._look_again({topic for topic, _ in left})
        return offsets

    async def _offsets_once(
        self, places: Sequence[Place], spec: Spec
    ) -> tuple[dict[Place, int], KafkaException | None]:
        """The offsets of those partitions that answer, and why one did not."""
        asked = self._client.list_offsets(
            {TopicPartition(*place): spec for place in places},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ASK,
        )
        found: dict[Place, int] = {}
        trouble: KafkaException | None = None
        for part, future in asked.items():
            try:
                found[part.topic, part.partition] = (await self.answer(future)).offset
            except KafkaException as error:
                trouble = error
        return found, trouble

    async def _look_again(self, topics: Collection[str]) -> None:
        """Have the driver ask anew who leads these topics: by itself it hardly ever does."""

        def ask() -> None:
            for topic in topics:
                self._client.list_topics(topic, timeout=ASK)

        try:
            await self.office.do(ask)
        except KafkaException as error:
            raise self.faults.of("look at the cluster", error) from error

    async def committed(
        self, group: str, places: Sequence[Place], *, is_first: bool = False
    ) -> Mapping[Place, tuple[int, str]]:
        """What a group has committed of these partitions, with the metadata.

        The first question of all groups has the server make what it keeps them in, which takes a
        busy one longer than an answer may take.
        """
        office, positions = self._clerk(group)
        limit = self.clock.now() + COORDINATOR
        passing = {*_MOVING, TIMED_OUT} if is_first else _MOVING
        while True:
            try:
                return await office.do(lambda: positions.committed(group, places))
            except KafkaException as error:
                if error.args[0].code() not in passing or self.clock.now() >= limit:
                    raise self.faults.of(f"look at group {group!r}", error) from error
            await self.clock.sleep(AGAIN_GROUP)

    def _clerk(self, group: str) -> tuple[Office, Positions]:
        """Who asks about this group: always the same, who keeps its connection."""
        if self._is_closed:
            raise Unavailable("the broker is closed")
        number = crc32(group.encode()) % SIDE_BY_SIDE
        if number not in self._clerks:
            self._clerks[number] = Office(), Positions(self.options, self.faults)
        return self._clerks[number]

    async def commit(self, group: str, offsets: Mapping[Place, int]) -> None:
        """Set the positions of a group that has no members."""
        if not offsets:
            return
        parts = [TopicPartition(*place, offset) for place, offset in offsets.items()]

        def ask() -> Future[ConsumerGroupTopicPartitions]:
            wanted = [ConsumerGroupTopicPartitions(group, parts)]
            [future] = self._client.alter_consumer_group_offsets(
                wanted, request_timeout=ASK
            ).values()
            return future

        try:
            result = await self.of_group(ask)
        except KafkaException as error:
            raise self.faults.of(f"set the start of group {group!r}", error) from error
        for part in result.topic_partitions or ():
            if part.error is not None:
                raise self.faults.of(
                    f"set the start of group {group!r}", KafkaException(part.error)
                )

    # Reading without a group

    async def read(
        self, starts: Mapping[Place, int], ends: Mapping[Place, int], *, limit: int = READ_BATCH
    ) -> dict[Place, list[Record]]:
        """Records from each start, at most `limit` of each partition, and none from its end on."""
        wanted = {place: at for place, at in starts.items() if at < ends.get(place, 0)}
        if not wanted:
            return {}
        try:
            return await self.office.do(lambda: self._reader.read(wanted, ends, limit))
        except KafkaException as error:
            raise self.faults.of("read", error) from error

    # Asking

    async def answer(self, future: Future[R]) -> R:
        """What the driver answers; cancelled, the driver is left to its answer."""
        return await self._answers.of(future, self._listen)

    def _listen(self, timeout: float) -> int:
        """Have the driver call back; only here, as who holds the connection keeps it open."""
        return 0 if self._admin is None else self._admin.poll(timeout)

    async def of_group(self, ask: Callable[[], Future[R]]) -> R:
        """The answer to a question about a group, asked again while its coordinator is not there.

        A server that was just started makes the place of all groups with the first question, and
        one that takes groups over reads them first.
        """
        limit = self.clock.now() + COORDINATOR
        while True:
            try:
                return await self.answer(ask())
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or self.clock.now() >= limit:
                    raise
            await self.clock.sleep(AGAIN_GROUP)
