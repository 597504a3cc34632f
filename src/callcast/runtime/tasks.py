"""`Tasks`, `Gate` and `Race` on asyncio: the one place that starts tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import TypeVar

from callcast.core.context import AMBIENT
from callcast.core.errors import Misuse
from callcast.ports.tasks import Child, Gate, Race, Tasks

R = TypeVar("R")


class AsyncioChild(Child):
    """One task, by the little that its owner may do with it."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Ask it to end."""
        self._task.cancel()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    async def wait(self) -> None:
        """Return when it has ended; cancelling the wait leaves the child alone."""
        await asyncio.wait([self._task])


class AsyncioTasks(Tasks):
    """Holds its children until they end, and tells `failed` the name and error of those that fail.

    `failed` hears every error but a cancellation, also `SystemExit` and `KeyboardInterrupt`: raised
    out of a task they would end the loop in the middle of everybody else's work. It must not raise.
    """

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        self._failed = failed
        self._children: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    def start(self, work: Coroutine[object, object, object], *, name: str) -> AsyncioChild:
        """Start a child of this name."""
        # It outlives whatever work is in hand where it is started, and must not speak in its name.
        context = copy_context()
        context.run(AMBIENT.set, None)
        task = asyncio.create_task(self._run(work, name), name=name, context=context)
        self._children.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._children.discard(task)
            work.close()  # cancelled before its first step it would be a coroutine never awaited

        task.add_done_callback(ended)
        return AsyncioChild(task)

    async def close(self) -> None:
        """Cancel all children, also those started meanwhile, and wait for them. Idempotent."""
        own = asyncio.current_task()
        while children := [child for child in self._children if child is not own]:
            for child in children:
                child.cancel()
            await asyncio.wait(children)

    async def _run(self, work: Coroutine[object, object, object], name: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, its owner is told
            self._failed(name, error)


class AsyncioGate(Gate):
    """An `asyncio.Event` by the words of the port."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return once open."""
        await self._event.wait()

    def open(self) -> None:
        """Let all through."""
        self._event.set()

    def shut(self) -> None:
        """Make the next ones wait."""
        self._event.clear()


class AsyncioRace(Race):
    """Runs each runner in a task of its own until the first one ends."""

    async def first(self, runners: Sequence[Callable[[], Awaitable[R]]]) -> R:
        """The result or error of the first that ends; of several at once, the earliest listed.

        The others are cancelled and awaited before this returns, also when it is cancelled itself.
        """
        if not runners:
            raise Misuse("a race needs at least one runner")
        tasks = [asyncio.create_task(_await(runner)) for runner in runners]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            winner = next(task for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # seen: a loser's error is not the race's
        return winner.result()


async def _await(runner: Callable[[], Awaitable[R]]) -> R:
    return await runner()
