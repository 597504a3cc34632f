"""The one thread that writes: jobs that wait are run together in one transaction.

| from    | event                                    | to                              |
|---------|------------------------------------------|---------------------------------|
| waiting | the thread is free                       | in a group with all that wait   |
| grouped | the group commits                        | done: memory changes, answered  |
| grouped | the group fails                          | alone, in its own transaction   |
| alone   | it commits                               | done: memory changes, answered  |
| alone   | it fails                                 | answered with its own error     |
| any     | no file, or no lock within `lock_wait`   | answered with that error        |
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from sqlite3 import Connection
from typing import TypeVar

from callcast.brokers.sqlite.jobs import Awaited, Blocking, Closed, Job, WriteFailed
from callcast.core.errors import CallcastError

R = TypeVar("R")

GROUP_MAX = 256
"""So many jobs share a transaction at most: other processes wait for the lock meanwhile."""

TIDY_EVERY = 100
"""So many commits lie between two moves of the log into the file that nobody waits for."""

_LOCK_PAUSES = (0.0002, 0.0005, 0.001, 0.002)
"""Seconds between two tries for the lock, the last one again and again. SQLite's own busy handler
backs off to 100 ms and starves beside heavy writers."""


class Writer:
    """A thread, its connection, and the jobs that wait for them.

    `connect` is called in that thread before the first job, and again after a failure.
    `lock_wait`: seconds to wait for another process's transaction.
    """

    def __init__(self, connect: Callable[[], Connection], *, lock_wait: float, name: str) -> None:
        self._connect = connect
        self._lock_wait = lock_wait
        self._cx: Connection | None = None  # the thread's own
        self._commits = 0  # since the log was last moved into the file
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._urgent: deque[Job] = deque()
        self._gate = threading.Lock()  # nothing is put behind the mark of the end
        self._is_stopped = False
        self._is_hurried = threading.Event()
        self.calm: threading.Lock = threading.Lock()  # held while the thread is inside SQLite
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def do(
        self,
        run: Callable[[Connection], R],
        after: Callable[[R], None] | None = None,
        *,
        then: Callable[[R], None] | None = None,
        orphaned: Callable[[R], None] | None = None,
        is_voidable: bool = False,
    ) -> R:
        """Run a job and return its result; raises `WriteFailed`. See `Awaited.wait`.

        `after` runs on the result of what is durable before the answer, `then` after it.
        """
        job = Awaited(run, after, orphaned)
        job.then = then
        self.put(job)
        return await job.wait(is_voidable=is_voidable)

    def put(self, job: Job) -> None:
        """Have a job run; raises `Closed` after `stop`."""
        with self._gate:
            if self._is_stopped:
                raise Closed("the broker is closed")
            self._jobs.put(job)

    def start(
        self,
        run: Callable[[Connection], R],
        after: Callable[[R], None] | None = None,
        *,
        ends_group: bool = False,
        is_urgent: bool = False,
    ) -> Blocking[R]:
        """Have a job run that no coroutine waits for; raises `Closed` after `stop`.

        `is_urgent`: it goes before all that waits.
        """
        job = Blocking(run, after)
        job.ends_group = ends_group
        if is_urgent:
            self._urgent.append(job)
            self.put(_KNOCK)
        else:
            self.put(job)
        return job

    def stop(self) -> None:
        """Let the thread end after the jobs that wait now, and stop waiting for locks."""
        with self._gate:
            if not self._is_stopped:
                self._is_stopped = True
                self._jobs.put(None)
        self._is_hurried.set()

    def join(self) -> None:
        """Wait for the end of the thread; its connection is closed by then."""
        self._thread.join()

    def drop(self) -> None:
        """In the child of a fork: close the inherited connection."""
        self._drop()

    def _work(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._gather()
            if group:
                self._run(group)
                answer(group)
                for job in group:
                    job.follow_up()
                if self._commits >= TIDY_EVERY and self._jobs.empty():
                    self._tidy_up()
        with self.calm:
            self._drop()

    def _gather(self) -> tuple[list[Job], bool]:
        """Wait for a job; all that wait by then, and whether that was the last of all."""
        jobs = self._jobs
        job = jobs.get()
        group: list[Job] = []
        while self._urgent:
            group.append(self._urgent.popleft())
        while job is not None:
            if not job.is_void:
                group.append(job)
            if job.ends_group or len(group) >= GROUP_MAX or jobs.empty():
                return group, False
            job = jobs.get_nowait()
        return group, True

    def _run(self, group: Sequence[Job]) -> None:
        with self.calm:
            is_begun, failure = self._attempt(group)
        if failure is None:
            for job in group:
                job.committed()
        elif is_begun and len(group) > 1:
            for job in group:
                self._run((job,))
        else:
            for job in group:
                job.failed(failure)

    def _attempt(self, group: Iterable[Job]) -> tuple[bool, CallcastError | None]:
        """Whether there was a file and a lock, and what went wrong."""
        try:
            cx = self._begun()
        except CallcastError as error:
            return False, error
        except sqlite3.Error as error:
            return False, translated(error)
        return True, self._transact(cx, group)

    def _transact(self, cx: Connection, group: Iterable[Job]) -> CallcastError | None:
        """Run a group to its commit; what went wrong, in which case nothing is changed."""
        is_committing = False
        try:
            for job in group:
                job.perform(cx)
            is_committing = True
            cx.execute("commit")
            self._commits += 1
        except CallcastError as error:
            self._roll_back(cx)
            return error
        except sqlite3.Error as error:
            self._roll_back(cx)
            return translated(error, is_committing=is_committing)
        return None

    def _begun(self) -> Connection:
        if self._cx is None:
            # Several processes that make one file together refuse each other the lock, too.
            self._cx = self._patiently(self._connect)
        cx = self._cx
        self._patiently(lambda: cx.execute("begin immediate"))
        return cx

    def _patiently(self, step: Callable[[], R]) -> R:
        """Try until nobody else holds the lock, at most `lock_wait` seconds."""
        waited = 0.0
        tries = 0
        while True:
            try:
                return step()
            except sqlite3.OperationalError as error:
                if not _is(error, sqlite3.SQLITE_BUSY) or waited >= self._lock_wait:
                    raise
            pause = _LOCK_PAUSES[min(tries, len(_LOCK_PAUSES) - 1)]
            self.calm.release()  # a fork need not wait for another process
            try:
                if self._is_hurried.wait(pause):
                    waited = self._lock_wait  # closing: one more try
            finally:
                self.calm.acquire()
            waited += pause
            tries += 1

    def _tidy_up(self) -> None:
        """Move the log into the file while nobody waits, else a later commit does, before its end.

        What is committed is durable in the log already: a failure here loses nothing.
        """
        self._commits = 0
        with self.calm:
            try:
                if self._cx is not None:
                    self._cx.execute("pragma wal_checkpoint(passive)")
            except sqlite3.Error:
                # The next group opens a new connection, and hears of it if it lasts.
                self._drop()

    def _roll_back(self, cx: Connection) -> None:
        try:
            if cx.in_transaction:
                cx.execute("rollback")
        except sqlite3.Error:
            # The transaction dies with its connection; the next group opens a new one.
            self._drop()

    def _drop(self) -> None:
        if self._cx is not None:
            self._cx.close()
            self._cx = None


class _Knock(Job):
    """Wakes the thread; there is nothing to do."""

    is_void = True

    def perform(self, cx: Connection) -> None:
        """Never called."""

    def committed(self) -> None:
        """Never called."""

    def failed(self, error: CallcastError) -> None:
        """Never called."""

    def answer(self) -> None:
        """Never called."""

    def unheard(self) -> None:
        """Never called."""


_KNOCK = _Knock()


def translated(error: sqlite3.Error, *, is_committing: bool = False) -> WriteFailed:
    """The error of SQLite in our words, with what to do about it."""
    remedy = ""
    for code, text in _REMEDIES:
        if _is(error, code):
            remedy = f": {text}"
    if getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
        remedy = ": the disk is full, the index of the log cannot grow; make room on it"
    # A full disk keeps no mark of a commit; a sync that failed may have left one on the disk.
    is_certain = not (is_committing and _is(error, sqlite3.SQLITE_IOERR))
    return WriteFailed(f"{error}{remedy}", is_certain=is_certain)


_REMEDIES = (
    (sqlite3.SQLITE_FULL, "make room on the disk"),
    (sqlite3.SQLITE_READONLY, "the file or its folder is read-only for this process"),
    (sqlite3.SQLITE_CANTOPEN, "the folder is missing, read-only or full"),
    (sqlite3.SQLITE_BUSY, "another process keeps the file locked"),
    (sqlite3.SQLITE_IOERR, "the disk failed"),
    (sqlite3.SQLITE_NOTADB, "it is not a SQLite database"),
    (sqlite3.SQLITE_CORRUPT, "restore it from a backup"),
)


def _is(error: sqlite3.Error, code: int) -> bool:
    # Errors of the sqlite3 module itself carry no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == code


def answer(group: Iterable[Job]) -> None:
    """Wake each loop once for all of its jobs."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in group:
        if job.loop is None:
            job.answer()
        else:
            loops.setdefault(job.loop, []).append(job)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_answer_all, jobs)
        except RuntimeError:  # the loop is closed
            for job in jobs:
                job.unheard()


def _answer_all(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.answer()
