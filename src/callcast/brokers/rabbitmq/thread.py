"""A thread with an event loop of its own: a blocked handler cannot stop what happens there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

R = TypeVar("R")
Work: TypeAlias = "Coroutine[object, object, R] | Reply[R]"


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
        """Do there what this makes, and return its result; cancelled, it is cancelled there too.

        A coroutine runs in a task. A `Reply` is waited for without one.
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
                call.drop()
        finally:
            self.loop.close()


class Reply(Generic[R]):
    """A result that is there later, on the loop: who waits is told at once, no turn later."""

    def __init__(self) -> None:
        self._told: Callable[[R], None] | None = None
        self._results: list[R] = []  # the one that there is, if any

    def then(self, told: Callable[[R], None]) -> None:
        """Call this once with the result."""
        if self._results:
            told(self._results[0])
        else:
            self._told = told

    def end(self, result: R) -> None:
        """This is the result."""
        self._results.append(result)
        if self._told is not None:
            self._told(result)


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
        self._task: asyncio.Task[R] | None = None

    # On the loop that does it

    def begin(self) -> None:
        """Do it, unless nobody wants it any more."""
        if self.answer.cancelled():
            return
        self._open.add(self)
        try:
            work = self._make()
        except Exception as error:  # noqa: BLE001 - the caller's, whatever it is
            self._tell(self._fail, error)
            return
        if isinstance(work, Reply):
            work.then(lambda result: self._tell(self._fulfil, result))
        else:
            self._task = asyncio.get_running_loop().create_task(work)
            self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Its caller has gone."""
        if self._task is not None:
            self._task.cancel()

    def drop(self) -> None:
        """It will not end any more."""
        self._tell(self.answer.cancel)

    def _ended(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self.drop()
        elif (error := task.exception()) is not None:
            self._tell(self._fail, error)
        else:
            self._tell(self._fulfil, task.result())

    def _tell(self, act: Callable[..., object], *result: object) -> None:
        self._open.discard(self)
        try:
            self._here.call_soon_threadsafe(act, *result)
        except RuntimeError:
            return  # the loop of the caller has ended, and nobody waits on it

    # On the caller's loop

    def _fulfil(self, result: R) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Stopped(Exception):
    """The thread has been stopped: nothing runs there any more."""
