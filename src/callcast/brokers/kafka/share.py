"""What one group gives this process: a driver's consumer, and what the group decides about it.

Rebalancing is cooperative: only what moves is revoked. A revoked partition hands out nothing more,
commits, and is let go at once: until then the driver reads no partition at all. While something is
out of it, who gets it waits for that (see `heirs`). One that was lost (the server gave it away
already) commits nothing. All of it happens in the member's thread: the driver calls back from
inside `poll` and `close`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Received

from callcast.brokers.kafka import marks
from callcast.brokers.kafka.codes import (
    ALL_BROKERS_DOWN,
    AUTHENTICATION,
    NO_COORDINATOR,
    TIMED_OUT,
    TRANSPORT,
)
from callcast.brokers.kafka.desk import Desk, Place
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.heirs import Heirs
from callcast.brokers.kafka.window import Commit
from callcast.core.errors import CallcastError, Unavailable
from callcast.ports.clock import Clock

R = TypeVar("R")

BATCH = 250
"""Records of a poll: so many, and no more, are made into messages before others have their turn."""
ENOUGH = 2_000
"""A partition of which so many records wait here need not be read for a moment."""
OPEN_MAX = 4_000
"""A partition of which so many records wait here is paused; it goes on below half of it. What the
driver had read ahead of it is read again then, and it takes some tenths of a second to begin."""
SIZE_MAX = 32 * 1_048_576
"""Bytes of bodies that do the same."""
ASK = 5.0
"""Seconds for a question to the server."""
LOOK = 0.02
"""Seconds between two looks at what is waited for while a member leaves."""
AGAIN = 0.05
"""Seconds before the same is asked again, or committed, after a refusal that passes."""
LAST_WAIT = 5.0
"""Seconds in which the last commit of a partition that moves must be accepted, and in which a
question may go without an answer before somebody hears of it."""

_PASSING = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    TIMED_OUT,
    TRANSPORT,
    NO_COORDINATOR,
}
"""Refusals of a commit after which the same commit may be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a member behaves."""

    config: Mapping[str, object]
    """For the driver; without the group."""
    clock: Clock
    faults: Faults
    revoke_wait: float
    """Seconds that what is out of a partition which moves is waited for."""


class Bench:
    """What the shares of a member have in common."""

    def __init__(self, desk: Desk, habits: Habits) -> None:
        self.desk: Desk = desk
        self.habits: Habits = habits
        self.clock: Clock = habits.clock
        self.lock: threading.Lock = threading.Lock()
        self.changed: threading.Condition = threading.Condition(self.lock)
        self.is_stopping: bool = False
        self.trouble: CallcastError | None = None
        """Why nothing can be fetched, as a typed error; None while all is well."""

    def pause(self, seconds: float) -> None:
        """Wait so long, or until something changes."""
        with self.changed:
            self.changed.wait(seconds)

    def has_enough(self, seconds: float = 0.0) -> bool:
        """Whether enough waits here of some partition, still so after so many seconds."""
        with self.changed:
            return not self.changed.wait_for(self._is_hungry, seconds)

    def _is_hungry(self) -> bool:
        windows = self.desk.windows.values()
        return self.is_stopping or all(len(window.open) < ENOUGH for window in windows)


class Share:
    """One consumer of the driver. Used in the member's thread only."""

    def __init__(self, group: str, bench: Bench) -> None:
        self.group: str = group
        self.is_assigned: bool = False
        """Whether the group has given this member its share, which may be nothing."""
        self._bench = bench
        self._topics: Sequence[str] = ()
        self._paused: set[Place] = set()
        self._begun: set[Place] = set()  # what the driver reads
        self._heirs = Heirs()
        self._answered_at = bench.clock.now()
        self._has_name = "group.instance.id" in bench.habits.config
        self._consumer = Consumer(
            {
                **bench.habits.config,
                "group.id": group,
                "error_cb": self._on_error,
            }
        )

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group."""
        self._topics = topics
        self._consumer.subscribe(
            list(topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, seconds: float, limit: int = BATCH) -> Sequence[Received]:
        """Up to so many of what has come, waiting for the first only."""
        first = self._consumer.poll(seconds)
        if first is None:
            return ()
        return [first] if limit == 1 else [first, *self._consumer.consume(limit - 1, 0)]

    def close(self) -> None:
        """Commit, and leave the group.

        What it has is given up before the driver closes: where the group moves partitions while it
        closes, driver and callback may wait for each other for ever (librdkafka 2.16). A member
        with a name of its own keeps its place in the group, which giving up would end.
        """
        if not self._has_name:
            self._consumer.unsubscribe()
            limit = self._bench.clock.now() + LAST_WAIT
            self._consumer.poll(0)
            while self._consumer.assignment() and self._bench.clock.now() < limit:
                self._consumer.poll(LOOK)
        self._consumer.close()

    def commit(self, commits: Sequence[Commit]) -> Sequence[Commit]:
        """Commit, and wait for the answer; those that were refused."""
        return [commit for commit, error in self._commit(commits) if error is not None]

    def _commit(self, commits: Sequence[Commit]) -> list[tuple[Commit, KafkaError | None]]:
        """What the server says to each."""
        try:
            answers = self._consumer.commit(
                offsets=[_offset(each) for each in commits], asynchronous=False
            )
        except KafkaException as error:
            return [(each, error.args[0]) for each in commits]
        errors = {(part.topic, part.partition): part.error for part in answers or ()}
        return [(each, errors.get((each.window.topic, each.window.partition))) for each in commits]

    def regulate(self, topics: Sequence[str]) -> None:
        """Pause the partitions of which enough waits here, resume those of which little does."""
        full: list[Place] = []
        hungry: list[Place] = []
        with self._bench.lock:
            for place, window in self._bench.desk.windows.items():
                if place[0] not in topics:
                    continue
                is_full = len(window.open) >= OPEN_MAX or window.size >= SIZE_MAX
                is_low = len(window.open) < OPEN_MAX // 2 and window.size < SIZE_MAX // 2
                if is_full and place not in self._paused:
                    full.append(place)
                elif is_low and place in self._paused:
                    hungry.append(place)
        if full:
            self._consumer.pause([TopicPartition(*place) for place in full])
            self._paused.update(full)
        if hungry:
            self._consumer.resume([TopicPartition(*place) for place in hungry])
            self._paused.difference_update(hungry)

    def inherit(self) -> None:
        """Begin the partitions that others have finished meanwhile, or can finish no more."""
        now = self._bench.clock.now()
        places = self._heirs.to_look_at(now)
        if not places:
            return
        asked = [TopicPartition(*place) for place in places]
        try:
            committed = _found(self._consumer.committed(asked, timeout=ASK))
        except KafkaException as error:
            if now >= self._answered_at + LAST_WAIT:
                self._bench.trouble = Unavailable(f"{self.group}: no answer: {error}")
            return
        self._answered_at = now
        starts = self._starts(self._consumer, committed)
        if starts:
            self._consumer.incremental_assign(starts)

    # What the group decides

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            committed = self._ask(lambda: _found(consumer.committed(partitions, timeout=ASK))) or []
            self._answered_at = self._bench.clock.now()
            consumer.incremental_assign(self._starts(consumer, committed))
        self.is_assigned = True

    def _starts(
        self, consumer: Consumer, committed: Sequence[TopicPartition]
    ) -> list[TopicPartition]:
        """Take over those of these partitions that can be begun."""
        starts: list[TopicPartition] = []
        for found in committed:
            place, now = (found.topic, found.partition), self._bench.clock.now()
            noted = marks.decode(found.offset, found.metadata)
            if self._heirs.may_begin(place, (found.offset, noted.handed_on), now):
                starts.append(self._start(consumer, found, noted))
                self._begun.add(place)
                self._paused.discard(place)
        return starts

    def _start(
        self, consumer: Consumer, found: TopicPartition, noted: marks.Marks
    ) -> TopicPartition:
        """Take a partition over where it was left; one that was added later at its beginning."""
        place = (found.topic, found.partition)
        if found.offset >= 0:
            start = TopicPartition(*place, found.offset)
        else:
            ends = self._ask(lambda: consumer.get_watermark_offsets(found, ASK))
            noted = marks.Marks(ends[0] if ends else 0)
            start = TopicPartition(*place, OFFSET_BEGINNING)
        with self._bench.lock:
            self._bench.desk.assign(place, noted)
        return start

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        bench = self._bench
        places = [(part.topic, part.partition) for part in partitions]
        with bench.lock:
            now = bench.clock.now()
            last = bench.desk.hand_on(places, now, now + bench.habits.revoke_wait)
        if last:
            self._commit_last(last)
        self._let_go(consumer, places)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """All that this member had: also what it was still finishing."""
        bench = self._bench
        places = [(part.topic, part.partition) for part in partitions]
        with bench.lock:
            bench.desk.drop(places)
            bench.desk.drop([at for at in bench.desk.handed_on if at[0] in self._topics])
        self._let_go(consumer, places)

    def _let_go(self, consumer: Consumer, places: Sequence[Place]) -> None:
        self._heirs.forget(places)
        # While it leaves, it may be told twice: once by the group, once by its own leaving.
        held = [place for place in places if place in self._begun]
        self._begun.difference_update(held)
        consumer.incremental_unassign([TopicPartition(*place) for place in held])

    def _commit_last(self, last: Sequence[Commit]) -> None:
        """Commit what moves to another member, which begins where this says, or waits."""
        limit = self._bench.clock.now() + LAST_WAIT
        while True:
            answers = self._commit(last)
            refused = [pair for pair in answers if pair[1] is not None]
            with self._bench.lock:
                for commit in (commit for commit, error in answers if error is None):
                    commit.window.committed(commit)
            if not refused:
                return
            codes = {error.code() for _, error in refused if error is not None}
            if not codes <= _PASSING or self._bench.clock.now() >= limit:
                break
            last = [commit for commit, _ in refused]
            self._bench.pause(AGAIN)
        # The group has gone on without this member: what was settled here comes again.
        with self._bench.lock:
            self._bench.desk.drop((one.window.topic, one.window.partition) for one, _ in refused)
        self._bench.trouble = Unavailable(f"{self.group}: could not commit: {refused[0][1]}")

    def _ask(self, question: Callable[[], R]) -> R | None:
        """Ask until there is an answer: without it no partition may be read."""
        patient_until = self._bench.clock.now() + LAST_WAIT
        while not self._bench.is_stopping:
            try:
                return question()
            except KafkaException as error:
                # Leaders change, and a topic that was just made has none yet.
                if self._bench.clock.now() >= patient_until:
                    self._bench.trouble = Unavailable(f"{self.group}: no answer: {error}")
                self._bench.pause(AGAIN)
        return None

    def _on_error(self, error: KafkaError) -> None:
        faults = self._bench.habits.faults
        faults.note(error)
        if error.code() in {ALL_BROKERS_DOWN, AUTHENTICATION}:
            self._bench.trouble = faults.connecting(f"could not reach group {self.group!r}")


def _found(answers: list[TopicPartition]) -> list[TopicPartition]:
    """What was committed; raises the error of a partition that has one: it is not at its start."""
    for part in answers:
        if part.error is not None:
            raise KafkaException(part.error)
    return answers


def _offset(commit: Commit) -> TopicPartition:
    window = commit.window
    return TopicPartition(window.topic, window.partition, commit.offset, commit.metadata)
