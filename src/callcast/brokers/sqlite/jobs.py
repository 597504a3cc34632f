"""Jobs: something to do inside a write transaction, and who is told how it ended."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from sqlite3 import Connection
from typing import Generic, TypeVar

from callcast.core.errors import CallcastError

R = TypeVar("R")


class WriteFailed(CallcastError):
    """A job was not carried out; `is_certain` is False when its commit may have taken effect."""

    def __init__(self, detail: str, *, is_certain: bool = True) -> None:
        super().__init__(detail)
        self.is_certain = is_certain


class Closed(WriteFailed):
    """The broker was closed before the job began."""


class Job(ABC):
    """One entry in the writer's queue."""

    is_void = False
    """Nobody wants it any more: it does not begin. Set by the caller's thread."""
    ends_group = False
    """What comes behind it needs the memory that it changes: that runs in the next transaction."""
    loop: asyncio.AbstractEventLoop | None = None
    """Where `answer` must be called; None is the writer's own thread."""

    @abstractmethod
    def perform(self, cx: Connection) -> None:
        """Change the database, never memory: it may be run a second time after a roll-back."""

    @abstractmethod
    def committed(self) -> None:
        """Change memory, in the writer's thread: what `perform` did last is durable."""

    @abstractmethod
    def failed(self, error: CallcastError) -> None:
        """Note that it was not carried out."""

    @abstractmethod
    def answer(self) -> None:
        """Tell whoever waits."""

    @abstractmethod
    def unheard(self) -> None:
        """Take note that the loop to answer on is closed."""

    def follow_up(self) -> None:  # noqa: B027 - nothing, unless a job has something
        """Do what nobody waits for, once all are answered; in the writer's thread."""


class _Task(Job, Generic[R]):
    """A job made of two functions."""

    _result: R
    then: Callable[[R], None] | None = None
    """Runs on the result of what is durable, after the answer."""

    def __init__(self, run: Callable[[Connection], R], after: Callable[[R], None] | None) -> None:
        self._run = run
        self._after = after
        self._error: CallcastError | None = None

    def perform(self, cx: Connection) -> None:
        """Run the first function."""
        self._result = self._run(cx)

    def committed(self) -> None:
        """Run the second one on its result."""
        if self._after is not None:
            self._after(self._result)

    def failed(self, error: CallcastError) -> None:
        """Keep the error for the answer."""
        self._error = error

    def follow_up(self) -> None:
        """Run `then`."""
        if self.then is not None and self._error is None:
            self.then(self._result)


class Awaited(_Task[R]):
    """A job that a coroutine waits for."""

    def __init__(
        self,
        run: Callable[[Connection], R],
        after: Callable[[R], None] | None,
        orphaned: Callable[[R], None] | None,
    ) -> None:
        super().__init__(run, after)
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._orphaned = orphaned  # called once at most
        self._future: asyncio.Future[R] = self.loop.create_future()

    async def wait(self, *, is_voidable: bool) -> R:
        """The result; raises `WriteFailed`.

        Cancelled while it waits in the queue, the job does not run if it `is_voidable`; a result
        that comes too late goes to `orphaned`.
        """
        try:
            return await self._future
        except asyncio.CancelledError:
            self.is_void = is_voidable
            if self._future.done() and not self._future.cancelled():
                self._future.exception()  # seen
                self.unheard()
            raise

    def committed(self) -> None:
        """Give the result back at once when nobody waits any more."""
        super().committed()
        if self.is_void:
            self.unheard()

    def answer(self) -> None:
        """Wake the coroutine."""
        if self._future.done():
            self.unheard()
        elif self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._result)

    def unheard(self) -> None:
        """Hand a result that nobody waits for to `orphaned`."""
        orphaned, self._orphaned = self._orphaned, None
        if self._error is None and orphaned is not None:
            orphaned(self._result)


class Blocking(_Task[R]):
    """A job that a thread may wait for."""

    def __init__(
        self, run: Callable[[Connection], R], after: Callable[[R], None] | None = None
    ) -> None:
        super().__init__(run, after)
        self._ended = threading.Event()

    def wait(self, timeout: float) -> R:
        """The result; raises `WriteFailed`, also when there is none within `timeout` seconds."""
        if not self._ended.wait(timeout):
            raise WriteFailed(f"no answer from the disk within {timeout:.1f} s", is_certain=False)
        if self._error is not None:
            raise self._error
        return self._result

    def answer(self) -> None:
        """Wake the thread."""
        self._ended.set()

    def unheard(self) -> None:
        """A thread is answered without a loop."""
