"""A thread with an event loop of its own: a blocked handler cannot stop what happens there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

R = TypeVar("R")
Work: TypeAlias = Coroutine[object, object, R] | asyncio.Future[R]


class LoopThread:
    """Runs coroutines and functions on a loop of its own, from its start until `stop`."""

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()  # of `begin`; changed on the loop only
        self._calls: set[_Call[Any]] = set()  # of `run`; changed on the loop only
        self._is_stopped = False
        self._stopping = threading.Lock()  # no call may come between the last one and the end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, make: Callable[[], Work[R]]) -> R:
        """Await there what this makes, and return its result; cancelled, it is cancelled there too.

        A coroutine runs in a task. A future is waited for as it is: two turns of the loop less.
        """
        call = _Call(make, self._calls, asyncio.get_running_loop())
        with self._stopping:
            if self._is_stopped:
                raise Stopped
            self.loop.call_soon_threadsafe(call.begin)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self.call(call.cancel)
            raise

    def call(self, act: Callable[[], object]) -> None:
        """Have a function called there soon; nothing happens once it has stopped."""
        with self._stopping:
            if not self._is_stopped:
                self.loop.call_soon_threadsafe(act)

    def begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """On the loop: run this beside the rest. It answers for its own errors."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """End what runs there, then the thread. Idempotent; no thread is left afterwards."""
        with self._stopping:
            if not self._is_stopped:
                self._is_stopped = True
                self.loop.call_soon_threadsafe(self._end)
        here = asyncio.get_running_loop()
        ended = asyncio.Event()
        waiter = threading.Thread(
            target=self._join, args=(here, ended), name="callcast-close", daemon=True
        )
        waiter.start()
        await ended.wait()
        waiter.join()

    def _join(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        self._thread.join()
        loop.call_soon_threadsafe(ended.set)

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        # One more turn, in which they end.
        self.loop.call_soon(self.loop.call_soon, self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            for call in list(self._calls):
                call.end(None)
        finally:
            self.loop.close()


class _Call(Generic[R]):
    """Something that one loop has another one do."""

    def __init__(
        self,
        make: Callable[[], Work[R]],
        open_: set[_Call[Any]],
        here: asyncio.AbstractEventLoop,
    ) -> None:
        self.answer: asyncio.Future[R] = here.create_future()
        self._make = make
        self._open = open_
        self._here = here
        self._work: asyncio.Future[R] | None = None

    # On the loop that does it

    def begin(self) -> None:
        """Do it, unless nobody wants it any more."""
        if self.answer.cancelled():
            return
        self._open.add(self)
        try:
            work = self._make()
            if not isinstance(work, asyncio.Future):
                work = asyncio.get_running_loop().create_task(work)
            self._work = work
        except Exception as error:  # noqa: BLE001 - the caller's, whatever it is
            self._work = asyncio.get_running_loop().create_future()
            self._work.set_exception(error)
        self._work.add_done_callback(self.end)

    def cancel(self) -> None:
        """Its caller has gone."""
        if self._work is not None:
            self._work.cancel()

    def end(self, work: asyncio.Future[R] | None) -> None:
        """It has ended, or will not end any more."""
        self._open.discard(self)
        try:
            self._here.call_soon_threadsafe(self._take, work)
        except RuntimeError:
            return  # the loop of the caller has ended, and nobody waits on it

    # On the caller's loop

    def _take(self, work: asyncio.Future[R] | None) -> None:
        if work is None or work.cancelled():
            self.answer.cancel()
            return
        error = work.exception()  # looked at also where nobody waits for it
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(work.result())
        else:
            self.answer.set_exception(error)


class Stopped(Exception):
    """The thread has been stopped: nothing runs there any more."""
