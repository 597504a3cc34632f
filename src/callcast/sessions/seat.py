"""One connection in one thread of its own: jobs run in the order in which they came."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from callcast.core.errors import NotSent

R = TypeVar("R")

Job = Callable[[sqlite3.Connection], R]


class _Order(Generic[R]):
    """A job on its way: posted, perhaps running, then finished."""

    def __init__(self, job: Job[R]) -> None:
        self._job = job
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R] = self._loop.create_future()
        self.is_running = False
        """Written by the thread; read by the loop to decide on an interrupt."""

    def run(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Run in the thread, and tell the loop."""
        self.is_running = True
        try:
            result = self._job(connect())
        except BaseException as error:  # noqa: BLE001 - carried to whoever awaits the future
            self.is_running = False
            self._tell(partial(self._fail, error))
        else:
            self.is_running = False
            self._tell(partial(self._succeed, result))

    def _tell(self, what: Callable[[], None]) -> None:
        # A closed loop has nobody left who waits for the answer.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _succeed(self, result: R) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Seat:
    """A connection that opens at its first job, in the thread that runs all of them."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._name = name
        self._connect = connect
        self._orders: queue.SimpleQueue[_Order[object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        """Opened, replaced and closed by the thread only."""
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more jobs."""
        return self._is_closed

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open on the connection."""
        return self._connection is not None and self._connection.in_transaction

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection; there is one from the first successful job on."""
        if self._connection is None:
            raise NotSent("no connection is open")
        return self._connection

    async def post(self, job: Job[R], *, is_interruptible: bool = False) -> R:
        """Run a job in the thread. Cancelled, it is not waited for, and runs or has run.

        `is_interruptible`: cancelled while it runs, SQLite is asked to stop it.
        """
        if self._is_closed:
            raise NotSent("the database is closed")
        order = _Order(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._orders.put(order)  # type: ignore[arg-type]  # R of one order is nobody else's concern
        try:
            return await order.future
        except asyncio.CancelledError:
            if is_interruptible and order.is_running and self._connection is not None:
                self._connection.interrupt()
            raise

    def drop(self) -> None:
        """Close the connection, in the thread; the next job opens a fresh one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """Finish what was posted, close the connection, end the thread. Idempotent."""
        self._is_closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._orders.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order.run(self._opened)
            del order  # else its frame keeps the last result alive until the next job
        self.drop()
