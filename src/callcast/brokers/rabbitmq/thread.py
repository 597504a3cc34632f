"""A thread with an event loop of its own: a blocked handler cannot stop what happens there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

R = TypeVar("R")


class LoopThread:
    """Runs coroutines and functions on a loop of its own, from its start until `stop`."""

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()  # of `begin`; changed on the loop only
        self._is_stopped = False
        self._stopping = threading.Lock()  # no call may come between the last one and the end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, make: Callable[[], Coroutine[object, object, R]]) -> R:
        """Run a coroutine there and return its result; cancelled, it is cancelled there too."""
        with self._stopping:
            if self._is_stopped:
                raise Stopped
            future = asyncio.run_coroutine_threadsafe(make(), self.loop)
        return await asyncio.wrap_future(future)

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
        finally:
            self.loop.close()


class Stopped(Exception):
    """The thread has been stopped: nothing runs there any more."""
