"""One thread for what would block the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from callcast.core.errors import NotSent

R = TypeVar("R")


class Office:
    """Does one thing after the other, in a thread of its own that starts with the first one."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    async def do(self, work: Callable[[], R]) -> R:
        """Have it done there; cancelled, it is done all the same."""
        if self._is_closed:
            raise NotSent("the broker is closed")
        return await self._give(work)

    async def close(self, last: Callable[[], None]) -> None:
        """Do this last, then end. Idempotent, also while it is being closed."""
        if self._is_closed:
            return
        self._is_closed = True
        done = self._give(last)
        self._errands.put(None)
        await done
        if self._thread is not None:
            self._thread.join()  # it has nothing left to do

    def _give(self, work: Callable[[], R]) -> asyncio.Future[R]:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="callcast-kafka-office", daemon=True
            )
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def errand() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                _call(loop, _fail, future, error)
            else:
                _call(loop, _answer, future, result)

        self._errands.put(errand)
        return future

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand()


def _call(loop: asyncio.AbstractEventLoop, *work: object) -> None:
    try:
        loop.call_soon_threadsafe(*work)  # type: ignore[arg-type]
    except RuntimeError:
        return  # the loop is closed: nobody waits any more


def _answer(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[R], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
