"""The thread that reads: it answers questions, hears nudges, looks for changes and for the dead.

Every `POLL` seconds it asks SQLite whether another connection has committed (one pragma on one
connection, whatever the number of consumers), in case a nudge was lost; every `REAP` seconds it
asks the kernel whether the owners of leases still live.
"""

from __future__ import annotations

import logging
import select
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from sqlite3 import Connection
from typing import TypeVar

from callcast.brokers.sqlite import fetch, reap
from callcast.brokers.sqlite.bells import Bells
from callcast.brokers.sqlite.dbclock import SECOND, DatabaseClock
from callcast.brokers.sqlite.jobs import Awaited, Closed, Job
from callcast.brokers.sqlite.live import Live
from callcast.brokers.sqlite.records import Turn
from callcast.brokers.sqlite.writer import Writer, answer, translated
from callcast.core.errors import CallcastError

R = TypeVar("R")

POLL = 0.25
"""Seconds between two looks for commits of others."""

REAP = 1.0
"""Seconds between two looks for leases of the dead: their messages are free within two. Whoever
opens the file has looked once, so that they are free for a program that runs for less."""

_LOG = logging.getLogger("callcast.sqlite")


class Watcher:
    """A thread with a connection that only reads."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        live: Live,
        *,
        clock: DatabaseClock,
        writer: Writer,
        bells: Bells,
        name: str,
    ) -> None:  # fmt: skip
        self._connect = connect
        self._live = live
        self._clock = clock
        self._writer = writer
        self._bells = bells
        self._cx: Connection | None = None  # the thread's own, once it runs
        self._version = -1  # of the file, as this connection last saw it
        self._reaped = 0
        self._ticks = 0
        self._questions: deque[Job] = deque()
        self._gate = threading.Lock()
        self.calm: threading.Lock = threading.Lock()  # held while the thread is inside SQLite
        self._is_stopped = False
        self._hears, self._knocks = socket.socketpair()
        self._hears.setblocking(False)  # noqa: FBT003 - the library's way
        self._knocks.setblocking(False)  # noqa: FBT003 - as above
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Open the connection, then start the thread; raises `sqlite3.Error`."""
        self._cx = self._connect()
        self._thread.start()

    async def ask(self, run: Callable[[Connection], R]) -> R:
        """The answer of a function that only reads; raises `WriteFailed`."""
        job = Awaited(run, None, None)
        with self._gate:
            if self._is_stopped:
                raise Closed("the broker is closed")
            self._questions.append(job)
        self._knock()
        return await job.wait(is_voidable=True)

    def stop(self) -> None:
        """Let the thread end after the questions that wait now. Idempotent."""
        with self._gate:
            self._is_stopped = True
        self._knock()

    def join(self) -> None:
        """Wait for the end of the thread; its connection is closed by then."""
        if self._thread.ident is not None:
            self._thread.join()
        self._hears.close()
        self._knocks.close()

    def forget(self) -> None:
        """In the child of a fork: close what belongs to the parent's thread."""
        self._hears.close()
        self._knocks.close()

    def drop(self) -> None:
        """In the child of a fork: close the inherited connection."""
        self._drop()

    def _knock(self) -> None:
        try:
            self._knocks.send(b"k")
        except BlockingIOError:
            return  # it is full of knocks already

    def _work(self) -> None:
        poll = select.poll()
        poll.register(self._hears, select.POLLIN)
        if self._live.socket is not None:
            poll.register(self._live.socket, select.POLLIN)
        waited = 0.0
        while not self._is_stopped:
            before = self._clock.now()
            is_idle = not poll.poll((POLL - min(waited, POLL)) * 1000)
            waited += (self._clock.now() - before) / SECOND
            self._hear()
            self._answer()
            # A clock that a test holds still does not count the seconds, an idle poll does.
            if is_idle or waited >= POLL:
                waited = 0.0
                with self.calm:
                    self._tick()
        self._answer()
        with self.calm:
            self._drop()

    def _hear(self) -> None:
        try:
            while self._hears.recv(256):
                continue
        except BlockingIOError:
            pass
        topics = self._live.heard()
        if topics is None:
            self._bells.ring_all()
        elif topics:
            self._bells.ring(topics)

    def _answer(self) -> None:
        jobs: list[Job] = []
        while self._questions:
            job = self._questions.popleft()
            if not job.is_void:
                with self.calm:
                    self._find_out(job)
                jobs.append(job)
        answer(jobs)

    def _find_out(self, job: Job) -> None:
        try:
            job.perform(self._opened())
        except CallcastError as error:
            job.failed(error)
        except sqlite3.Error as error:
            self._drop()
            job.failed(translated(error))

    def _tick(self) -> None:
        self._ticks += 1
        try:
            cx = self._opened()
            version = cx.execute("pragma data_version").fetchone()[0]
            if version != self._version:
                self._version = version
                self._look_around(cx)
            if self._ticks * POLL >= REAP:
                self._ticks = 0
                self._reap(cx)
        except (sqlite3.Error, CallcastError) as error:
            # The next tick opens the file anew; whoever publishes or fetches gets the error.
            _LOG.warning("cannot look into the file", extra={"error": str(error)})
            self._drop()

    def _look_around(self, cx: Connection) -> None:
        """Ring for those who wait though there is something, or something earlier than known."""
        now = self._clock.now()
        for bell in self._bells.awaited():
            if fetch.wait(cx, bell.hand, now) < bell.left():
                bell.ring()

    def _reap(self, cx: Connection) -> None:
        for instance in reap.dead(cx, self._live.is_alive):
            self._take_back(partial(reap.of_dead, instance=instance))
        now = self._clock.now()
        if cx.execute("select 1 from lease where until <= ? limit 1", (now,)).fetchone():
            self._take_back(reap.of_ended)

    def _take_back(self, run: Callable[[Turn], list[int]]) -> None:
        try:
            self._writer.start(lambda cx: run(Turn(cx, self._clock.now())), self._told)
        except Closed:
            return  # the next process to look takes it back

    def _told(self, topics: list[int]) -> None:
        self._bells.ring(topics)
        self._live.nudge(topics)

    def _opened(self) -> Connection:
        if self._cx is None:
            self._cx = self._connect()
        return self._cx

    def _drop(self) -> None:
        if self._cx is not None:
            self._cx.close()
            self._cx = None
