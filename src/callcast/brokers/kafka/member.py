"""A process in the groups of one source: a thread that polls for all its consumers.

The thread never stops polling, whatever handlers do: a partition whose messages nobody takes is
paused.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka.bells import Bells
from callcast.brokers.kafka.codes import NO_OFFSET, PARTITION_END
from callcast.brokers.kafka.commits import Commits
from callcast.brokers.kafka.desk import Desk, Place
from callcast.brokers.kafka.names import Names
from callcast.brokers.kafka.records import Received, record_of
from callcast.brokers.kafka.share import LAST_WAIT, LOOK, Bench, Habits, Share
from callcast.brokers.kafka.window import Commit
from callcast.brokers.kafka.wire import Arrival
from callcast.core.errors import CallcastError, Misuse, Unavailable
from callcast.ports.broker import Source

POLL = 0.05
"""Seconds that a poll waits at most: so soon it sees what other threads want of it."""
POLL_BUSY = 0.004
"""The same while something is out or waits here. The driver offers no way to end a poll early, and
asking it for a commit from another thread meanwhile deadlocks in its Python binding (2.16)."""

REST = 0.25
"""Seconds in which workers use up half of what is read ahead, where that is never to be paused."""
LEAVE_WAIT = 10.0
"""Seconds for the last commit and for leaving the groups."""
REJOIN = 1.0
"""Seconds before a member begins anew after an error that the driver cannot get over."""


class Member:
    """Reads the partitions of one source for all consumers of this process."""

    def __init__(self, source: Source, names: Names, habits: Habits) -> None:
        self.names: Names = names
        self.desk: Desk = Desk(source)
        self.bells: Bells = Bells()
        self.is_ended: bool = False
        self.users = 0
        """Consumers that share this member; changed by the broker."""
        self._bench = Bench(self.desk, habits)
        self.lock: threading.Lock = self._bench.lock
        self._clock = habits.clock
        self._leave_by: float | None = None  # set by `stop`
        self._rest_until = -math.inf
        self.desk.wall_offset = self._clock.wall() - self._clock.now()
        self.commits: Commits = Commits(self.desk, self.lock, send=self._send, clock=self._clock)
        self._main, self._side = self._shares()
        self._thread = threading.Thread(
            target=self._run, name=f"callcast-kafka-{names.group}", daemon=True
        )

    @property
    def trouble(self) -> CallcastError | None:
        """Why nothing can be fetched, as a typed error; None while all is well."""
        return self._bench.trouble

    @property
    def is_assigned(self) -> bool:
        """Whether both groups have given this member its share, which may be nothing."""
        return self._main.is_assigned and self._side.is_assigned

    def start(self) -> None:
        """Join the groups."""
        self._thread.start()

    def stop(self) -> None:
        """Commit, leave the groups, and end; `join` waits for it. Idempotent."""
        with self._bench.changed:
            self._leave_by = self._leave_by or self._clock.now() + LEAVE_WAIT
            self._bench.is_stopping = True
            self._bench.changed.notify_all()

    def join(self) -> None:
        """Wait until it has ended, or `LEAVE_WAIT` after it was stopped. Blocks.

        The driver waits for the answer to a commit for as long as that takes. A server that does
        not answer is left without a word: the thread ends when it does, or with the process.
        """
        now = self._clock.now()
        self._thread.join(max(0.0, (self._leave_by or now + LEAVE_WAIT) - now))

    def nudge(self) -> None:
        """Tell who waits that something was settled or given back. Thread-safe."""
        with self._bench.changed:
            self._bench.changed.notify_all()
        self.bells.ring()

    def heard(self, trouble: CallcastError) -> None:
        """Forget a trouble that was told and may have passed."""
        if isinstance(trouble, Unavailable) and not self.is_ended and self.trouble is trouble:
            self._bench.trouble = None

    # The thread

    def _shares(self) -> tuple[Share, Share]:
        return Share(self.names.group, self._bench), Share(self.names.side, self._bench)

    def _run(self) -> None:
        try:
            while not self._bench.is_stopping:
                self._serve()
            self._leave()
        finally:
            if not self._bench.is_stopping:
                self._bench.trouble = Unavailable(f"{self.names.group}: the reading thread died")
            self.is_ended = True
            self.commits.end()
            self.bells.ring()

    def _serve(self) -> None:
        """Take part until it is to stop; begin anew after what the driver cannot get over."""
        try:
            self._main.subscribe([self.names.topic])
            self._side.subscribe(self.names.beside)
            while not self._bench.is_stopping:
                self._turn()
        except KafkaException as error:
            self._bench.trouble = Unavailable(f"{self.names.group}: cannot consume: {error}")
            self._leave()
            with self.lock:
                self.desk.drop([*self.desk.windows, *self.desk.handed_on])
            self._main, self._side = self._shares()
            self._bench.pause(REJOIN)

    def _leave(self) -> None:
        try:
            self._finish()
        except KafkaException as error:
            self._bench.trouble = Unavailable(f"{self.names.group}: could not finish: {error}")
        for share in (self._main, self._side):
            try:
                share.close()
            except KafkaException as error:
                self._bench.trouble = Unavailable(f"{self.names.group}: could not leave: {error}")

    def _finish(self) -> None:
        """Commit the last of all partitions while it is still a member: no member, no commit.

        A group that moves to its next generation refuses commits until this member has heard of
        it, which one that leaves never does. So it takes part until all is accepted.
        """
        now = self._clock.now()
        limit = now + LAST_WAIT
        with self.lock:
            self.desk.hand_on(list(self.desk.windows), now, now)
        while self.desk.handed_on and self._clock.now() < limit:
            self.commits.pump()
            for share in (self._main, self._side):
                share.poll(0)  # what it reads is nobody's here any more
            with self.lock:
                self.desk.tick(self._clock.now())
            if self.desk.handed_on:
                self._bench.pause(LOOK)

    def _turn(self) -> None:
        was_assigned = self.is_assigned
        places = len(self.desk.windows)
        batch = self._read()
        if batch:
            self._receive(batch)
        now = self._clock.now()
        with self.lock:
            is_due = self.desk.next_due <= now
            self.desk.tick(now)
        self._main.regulate((self.names.topic,))
        self._side.regulate(self.names.beside)
        self._main.inherit()
        self._side.inherit()
        self.commits.pump()
        has_moved = was_assigned != self.is_assigned or places != len(self.desk.windows)
        if batch or is_due or has_moved or self.trouble is not None:
            self.bells.ring()

    def _read(self) -> Sequence[Received]:
        """What has come; while workers are quick and have enough, hardly anything, and slowly.

        A partition that is paused for a moment only costs more than it saves. One that is not used
        up quickly is read on, and then paused, so that it does not hold up the others.
        """
        now = self._clock.now()
        if now < self._rest_until and self._bench.has_enough(POLL_BUSY):
            return [*self._main.poll(0, 1), *self._side.poll(0)]
        batch = [*self._main.poll(self._patience()), *self._side.poll(0)]
        if batch:
            self._rest_until = self._clock.now() + REST
        return batch

    def _patience(self) -> float:
        with self.lock:
            due = self.desk.next_due
            is_busy = any(window.open or window.is_dirty for window in self.desk.windows.values())
            is_busy = is_busy or bool(self.desk.handed_on)
        is_busy = is_busy or self.commits.is_awaited or not self.is_assigned
        return max(0.0, min(POLL_BUSY if is_busy else POLL, due - self._clock.now()))

    def _receive(self, batch: Iterable[Received]) -> None:
        arrivals: dict[Place, list[Arrival]] = {}
        ends: dict[Place, int] = {}
        for received in batch:
            error = received.error()
            if error is None:
                record = record_of(received)
                arrivals.setdefault((record.topic, record.partition), []).append(
                    self.desk.read(record)
                )
                continue
            place = (received.topic() or "", received.partition() or 0)
            if error.code() == PARTITION_END:
                ends[place] = received.offset() or 0
            else:
                self._failed(place, error)
        now, wall = self._clock.now(), self._clock.wall()
        with self.lock:
            self.desk.wall_offset = wall - now
            for place, some in arrivals.items():
                self.desk.feed(place, some, now=now, wall=wall)
            for place, offset in ends.items():
                self.desk.passed(place, offset)
        if arrivals:
            self._bench.trouble = None

    def _failed(self, place: Place, error: KafkaError) -> None:
        if error.fatal():
            raise KafkaException(error)
        if error.code() in {NO_OFFSET, KafkaError.OFFSET_OUT_OF_RANGE}:
            self._bench.trouble = Misuse(
                f"{place[0]}/{place[1]}: the messages at the position of group"
                f" {self.names.group!r} are gone (the topic's retention is shorter than the time"
                " the group was behind); open the broker with ?expired=earliest to go on at the"
                " oldest that is kept, and replay what was lost from its source"
            )
        else:
            what = f"fetch for group {self.names.group!r}"
            self._bench.trouble = self._bench.habits.faults.of(what, KafkaException(error))

    # Commits of both groups

    def _send(self, commits: Sequence[Commit]) -> Sequence[Commit]:
        main = [each for each in commits if each.window.topic == self.names.topic]
        side = [each for each in commits if each.window.topic != self.names.topic]
        refused = [*self._main.commit(main)] if main else []
        return [*refused, *self._side.commit(side)] if side else refused
