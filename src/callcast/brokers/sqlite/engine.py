"""An opened file: its threads, its lock, its clock. One for each broker and process."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from callcast.brokers.sqlite import files, reap, schema
from callcast.brokers.sqlite.bells import Bells
from callcast.brokers.sqlite.dbclock import DatabaseClock, span
from callcast.brokers.sqlite.files import Synchronous
from callcast.brokers.sqlite.forks import HOOKS
from callcast.brokers.sqlite.jobs import Closed
from callcast.brokers.sqlite.live import Live
from callcast.brokers.sqlite.publish import Published
from callcast.brokers.sqlite.records import Turn
from callcast.brokers.sqlite.watch import Watcher
from callcast.brokers.sqlite.writer import Writer
from callcast.ports.clock import Clock

R = TypeVar("R")

TRIM_EVERY = 16
"""Leases that end until the log is trimmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a file is used."""

    path: Path
    synchronous: Synchronous
    retain: float
    lock_wait: float


class Engine:
    """Opens the file in the writer's thread before its first job; until then touches nothing."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self.clock: DatabaseClock = DatabaseClock(clock)
        self.bells: Bells = Bells()
        path = options.path
        self.live: Live = Live(path.with_name(f"{path.name}-live"))
        self.owners: itertools.count[int] = itertools.count(1)
        self.writer: Writer = Writer(
            self._connect, lock_wait=options.lock_wait, name=f"{path.name}-writer"
        )
        self._watcher = Watcher(
            lambda: files.connect_reader(path),
            self.live,
            clock=self.clock,
            writer=self.writer,
            bells=self.bells,
            name=f"{path.name}-watcher",
        )
        self._is_watching = False  # the writer's thread sets it
        self._ended: Counter[int] = Counter()  # leases by topic since its last trim; as above

    async def read(self, run: Callable[[Connection], R]) -> R:
        """Ask the reader, once the file is open."""
        if not self._is_watching:
            await self.writer.do(_touch)
        return await self._watcher.ask(run)

    def tell(self, topics: Iterable[int], *, others: bool = True) -> None:
        """Say that there is something new in these topics, here and to the other processes."""
        self.bells.ring(topics)
        if others and topics:
            self.live.nudge(topics)

    def published(self, done: Published) -> None:
        """Say where something new is. Called in the writer's thread."""
        self.tell(done.topics)
        if self.options.retain > 0:
            for topic in done.topics:  # one that nobody consumes is trimmed too
                self.leases_ended(topic, 1)

    def leases_ended(self, topic: int, count: int) -> None:
        """Count; trim the log now and then. Called in the writer's thread."""
        self._ended[topic] += count
        if self._ended[topic] >= TRIM_EVERY:
            self._ended[topic] = 0
            self._trim(topic)

    def stop(self) -> None:
        """Let both threads end; what waits is still done."""
        self._watcher.stop()
        self.writer.stop()

    def join(self) -> None:
        """Wait for the threads, then drop the lock: what is still leased is free."""
        self._watcher.join()
        self.writer.join()
        self.live.close()
        HOOKS.discard(self)

    @property
    def calm(self) -> tuple[threading.Lock, ...]:
        """Held while one of the threads is inside SQLite; see `forks`."""
        return (self.writer.calm, self._watcher.calm)

    def drop(self, *, is_calm: bool) -> None:
        """In the child of a fork: leave the parent's file alone; see `forks`."""
        self.live.forget()
        self._watcher.forget()
        if is_calm:
            self.writer.drop()
            self._watcher.drop()
        else:
            _UNCALM.append(self)

    def _trim(self, topic: int) -> None:
        retain = self.options.retain

        def trim(cx: Connection) -> bool:
            since = self.clock.wall() - span(retain) if retain > 0 else None
            return reap.trim(cx, topic, since)

        try:
            self.writer.start(trim, lambda has_more: self._trim(topic) if has_more else None)
        except Closed:
            return  # the next one to consume trims

    def _connect(self) -> Connection:
        files.claim(self.options.path)
        if not self.live.is_open:
            self.live.open()
            HOOKS.add(self)
        cx = files.connect_writer(self.options.path, self.options.synchronous)
        try:
            # From here on the writer tries again in its own way: SQLite's would starve.
            cx.execute("pragma busy_timeout = 0")
            cx.execute("begin immediate")
            schema.prepare(cx, str(self.options.path))
            self.clock.anchor(cx)
            freed = self._reap(cx)
            cx.execute("commit")
            if not self._is_watching:
                self._watcher.start()
                self._is_watching = True
        except BaseException:
            cx.close()  # rolls back
            raise
        self.tell(freed)
        return cx

    def _reap(self, cx: Connection) -> set[int]:
        """Take back what the dead held, before anything is fetched."""
        turn = Turn(cx, self.clock.now())
        dead = reap.dead(cx, self.live.is_alive)
        return {topic for instance in dead for topic in reap.of_dead(turn, instance)}


_UNCALM: list[Engine] = []
"""Inherited in the middle of an operation: never closed, since that would wait for a thread that
there is not in this process."""


def _touch(cx: Connection) -> None:
    """Nothing: the file is open by now."""
    del cx
