"""SQLite as a `Database`: one writer and one reader, each a connection in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, cast

from msgspec import Struct

from callcast.core.errors import Busy, CommitUnknown, Misuse, NotSent, Unavailable
from callcast.ports.clock import Clock
from callcast.ports.failpoints import Failpoints, nowhere
from callcast.ports.session import Row, Session
from callcast.sessions.seat import Seat
from callcast.sessions.sqlite_driver import MEMORY, connect, primary_code, translated

R = TypeVar("R")

Steps: TypeAlias = Callable[[Session], Coroutine[object, None, R]]

_OURS = frozenset({"begin", "commit", "end"})
"""A handler's transaction is opened and ended by the library."""

_READ_WAIT = 5.0  # `:memory:` only: as long as a writer waits by default
_PAUSES = (0.0005, 0.002, 0.0011, 0.0017, 0.0008, 0.0014)
"""Seconds between two tries for the lock, again and again from the start. A process that writes
back to back leaves gaps of a fraction of a millisecond: whoever backs off further starves, and so
does whoever keeps time with it."""


class SqliteDatabase:
    """A `Database` on one SQLite file, shared with other processes and with the user's own code.

    WAL and ``synchronous=FULL``: what was committed survives a crash and a power cut. Within the
    process writers wait in the order in which they came; against other processes each tries again
    until its `wait` is over. A file that does not exist is made, readable for its owner only.
    ``:memory:`` is private to this object; with its single connection `read` waits for the writer.
    Errors of a statement itself (a constraint, its syntax) are `sqlite3.Error`, as the driver
    raises them. Raises `Misuse` when the file is a symbolic link, or is used after a fork.
    """

    def __init__(self, path: str, *, clock: Clock, failpoints: Failpoints = nowhere) -> None:
        self.path = path
        self._clock = clock
        self._process = os.getpid()
        self._writer = Writer(path, clock, failpoints)
        self._reader = Seat("callcast-sqlite-reader", partial(connect, path, is_reader=True))
        self._is_closed = False

    @property
    def dialect(self) -> str:
        """``sqlite``."""
        return "sqlite"

    def begin(self, *, wait: float = 5.0, is_durable: bool = True) -> SqliteTransaction:
        """A write transaction, ``BEGIN IMMEDIATE``; see `Database.begin`.

        One that need not be durable is not synced by itself, but with the next one that must be.
        """
        self._check()
        deadline = self._clock.now() + wait
        return SqliteTransaction(self._writer, deadline, is_durable=is_durable)

    async def read(self, sql: str, *args: object) -> Sequence[Row]:
        """All rows of a query, as last committed. Raises `Busy` or `Unavailable`."""
        self._check()
        if self.path != MEMORY:
            return await self._reader.post(_Statement(self.path, sql, args).fetch)
        await self._writer.take_turn(self._clock.now() + _READ_WAIT)
        try:
            return await self._writer.fetch(sql, args)
        finally:
            self._writer.give_turn()

    async def close(self) -> None:
        """Close both connections; an open transaction is rolled back. Idempotent."""
        self._is_closed = True
        await self._reader.close()
        await self._writer.seat.close()

    def _check(self) -> None:
        if self._is_closed:
            raise NotSent(f"{self.path}: the database is closed")
        if os.getpid() != self._process:
            raise Misuse(f"{self.path}: opened before a fork; open it again in the child")


class Writer:
    """The one connection that writes: a turn for this process, a lock against the others."""

    def __init__(self, path: str, clock: Clock, failpoints: Failpoints) -> None:
        self.path = path
        self.seat: Seat = Seat("callcast-sqlite-writer", partial(connect, path))
        self._clock = clock
        self._failpoints = failpoints
        self._turn = asyncio.Lock()  # it is fair: first come, first served

    async def take_turn(self, deadline: float) -> None:
        """Wait until no other transaction of this process is open; `Busy` at `deadline`."""
        if not self._turn.locked():
            await self._turn.acquire()
            return
        try:
            with self._clock.expire_at(deadline, coarse=False):
                await self._turn.acquire()
        except TimeoutError as late:
            raise Busy(
                f"{self.path}: another transaction of this process is open for too long;"
                " call first and write then, so that a handler holds no lock while it waits"
            ) from late

    def give_turn(self) -> None:
        """Let the next one in."""
        self._turn.release()

    async def open(self, deadline: float, *, is_durable: bool) -> None:
        """``BEGIN IMMEDIATE``, again and again until `deadline` while another process writes."""
        sync = "full" if is_durable else "normal"
        begin = _Statement(self.path, "begin immediate", (), before=f"pragma synchronous = {sync}")
        for pause in cycle(_PAUSES):
            try:
                await self.seat.post(begin.execute)
            except Busy:
                left = deadline - self._clock.now()
                if left <= 0:
                    raise
                await self._clock.sleep(min(pause, left))
            else:
                return

    async def execute(self, sql: str, args: tuple[object, ...]) -> int:
        """One statement; a cancelled one is interrupted."""
        return await self.seat.post(_Statement(self.path, sql, args).execute, is_interruptible=True)

    async def fetch(self, sql: str, args: tuple[object, ...]) -> Sequence[Row]:
        """One query; a cancelled one is interrupted."""
        return await self.seat.post(_Statement(self.path, sql, args).fetch, is_interruptible=True)

    async def gather(self, steps: Steps[R]) -> R:
        """Several statements; cancelled, the one that runs is interrupted."""
        return await self.seat.post(partial(_drive, self.path, steps), is_interruptible=True)

    async def commit(self) -> None:
        """``COMMIT``. A cancelled one goes on: the caller does not know how it ended."""
        await self.seat.post(self._commit)

    async def roll_back(self) -> None:
        """``ROLLBACK``: it comes to pass, before any later job, though the waiting is cancelled."""
        if not self.seat.is_closed:  # closing the connection has rolled it back
            await self.seat.post(self._roll_back)

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("commit")
        except sqlite3.Error as error:
            self._roll_back(connection)
            if primary_code(error) == sqlite3.SQLITE_IOERR:
                # The commit record may have reached the disk, or not: only a reader can tell.
                raise CommitUnknown(f"{self.path}: COMMIT ended with {error}") from error
            raise translated(error, self.path) from error
        try:
            self._failpoints("session.committed")
        except Exception as lost:
            raise CommitUnknown(f"{self.path}: the reply to COMMIT was lost: {lost}") from lost

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("rollback")
        except sqlite3.Error:
            # Closing it rolls back in any case; the next job opens a fresh connection.
            self.seat.drop()


class SqliteTransaction:
    """A write transaction; entered, it is the `Session`.

    | state  | `__aenter__`            | statement | clean exit            | exit with an error |
    |--------|-------------------------|-----------|-----------------------|--------------------|
    | new    | open; ended when `Busy` | -         | -                     | -                  |
    | open   | -                       | runs      | COMMIT, ended         | ROLLBACK, ended    |
    | broken | -                       | `NotSent` | ROLLBACK, `NotSent`   | ROLLBACK, ended    |
    | ended  | -                       | `Misuse`  | -                     | -                  |

    It breaks by a cancelled statement, and when SQLite itself has rolled it back (disk full).
    """

    def __init__(self, writer: Writer, deadline: float, *, is_durable: bool) -> None:
        self._writer = writer
        self._is_durable = is_durable
        self._deadline = deadline
        self._is_open = False
        self._broken = ""

    async def __aenter__(self) -> Self:
        """Wait for turn and lock until the deadline; raises `Busy` or `Unavailable`."""
        await self._writer.take_turn(self._deadline)
        try:
            await self._writer.open(self._deadline, is_durable=self._is_durable)
        except (Busy, Unavailable):
            self._writer.give_turn()
            raise
        except BaseException:
            # BEGIN may be carried out though we no longer wait for it.
            await self._leave()
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, or roll back; see `Database.begin`."""
        self._is_open = False
        if error is not None or self._broken:
            await self._leave()
        if error is None and self._broken:
            raise NotSent(f"nothing was written: {self._broken}")
        if error is None:
            try:
                await self._writer.commit()
            finally:
                self._writer.give_turn()

    async def execute(self, sql: str, *args: object) -> int:
        """Run a statement; see `Session.execute`."""
        self._check(sql)
        try:
            return await self._writer.execute(sql, args)
        except BaseException as error:
            self._note(error)
            raise

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run a query; see `Session.fetch`."""
        self._check(sql)
        try:
            return await self._writer.fetch(sql, args)
        except BaseException as error:
            self._note(error)
            raise

    async def gather(self, steps: Steps[R]) -> R:
        """Run steps in one go, in the thread; see `Gathers`."""
        self._check("")
        try:
            return await self._writer.gather(steps)
        except BaseException as error:
            self._note(error)
            raise

    def connection(self) -> sqlite3.Connection:
        """The driver's connection, in autocommit mode inside this transaction."""
        self._check("")
        return self._writer.seat.connection

    async def _leave(self) -> None:
        try:
            await self._writer.roll_back()
        finally:
            # Its ROLLBACK stands in the thread's queue before anything that comes next.
            self._writer.give_turn()

    def _check(self, sql: str) -> None:
        if self._broken:
            raise NotSent(f"nothing is written: {self._broken}")
        if not self._is_open:
            raise Misuse("the transaction has ended; use it inside its block or handler")
        if sql[:8].strip().rstrip(";").lower() in _OURS:
            raise Misuse(f"{sql!r}: the library begins and ends the transaction, not its user")

    def _note(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._broken = "a statement was cancelled, so the transaction was given up"
        elif not self._writer.seat.is_in_transaction:
            self._broken = f"the database rolled the transaction back: {error}"


class _InThread:
    """The session as steps see it that run in the thread: nothing of it waits."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    async def execute(self, sql: str, *args: object) -> int:
        return _Statement(self._path, sql, args).execute(self._connection)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        return _Statement(self._path, sql, args).fetch(self._connection)

    def connection(self) -> sqlite3.Connection:
        return self._connection


def _drive(path: str, steps: Steps[R], connection: sqlite3.Connection) -> R:
    running = steps(_InThread(path, connection))
    try:
        running.send(None)
    except StopIteration as end:
        return cast("R", end.value)
    running.close()
    raise Misuse("steps in one go await nothing but their session")


class _Statement(Struct, frozen=True):
    """A statement on its way to the thread."""

    path: str
    sql: str
    args: tuple[object, ...]
    before: str = ""

    def execute(self, connection: sqlite3.Connection) -> int:
        """How many rows it changed."""
        try:
            if self.before:
                connection.execute(self.before)
            return max(0, connection.execute(self.sql, self.args).rowcount)
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def fetch(self, connection: sqlite3.Connection) -> Sequence[Row]:
        """All its rows."""
        try:
            rows: list[Row] = connection.execute(self.sql, self.args).fetchall()
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        return rows
