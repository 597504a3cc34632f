"""Committing: one at a time, each with all that changed meanwhile.

The member's thread drives it and waits for the server's answer, so that nothing is ever under way
twice or answered in another order; `durable` is for event loops. An answer takes a millisecond or
two, and meanwhile the driver goes on reading.

| something changed                    | committed                                  |
|--------------------------------------|--------------------------------------------|
| and nobody waits for it              | `PACE` after the last commit, with the rest |
| and somebody does                    | at once                                    |
| and the last commit was refused      | `REFUSED_PAUSE` after that                 |
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence

from callcast.brokers.kafka.desk import Desk
from callcast.brokers.kafka.window import Commit
from callcast.core.errors import Unavailable
from callcast.ports.clock import Clock

PACE = 0.02
"""Seconds between two commits, unless somebody waits for one."""
REFUSED_PAUSE = 0.1
"""Seconds before the next commit after one that was refused."""
PATIENCE = 5.0
"""Seconds that `durable` waits."""


class Commits:
    """The commits of one member."""

    def __init__(
        self,
        desk: Desk,
        lock: threading.Lock,
        *,
        send: Callable[[Sequence[Commit]], Sequence[Commit]],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._lock = lock
        self._send = send  # gives those that were refused
        self._clock = clock
        self._next_at = -math.inf
        self._refused_until = -math.inf
        self._waiting: list[asyncio.Future[None]] = []  # taken as a whole by each commit
        self._is_ended = False

    def pump(self) -> None:
        """Commit what there is, unless it is too early. Blocks until the server has answered."""
        now = self._clock.now()
        with self._lock:
            is_early = now < self._next_at and not self._waiting
            if is_early or now < self._refused_until or self._is_ended:
                return
            plans = self._desk.plans(now)
            waiting, self._waiting = self._waiting, []
        refused = self._send(plans) if plans else ()
        now = self._clock.now()
        with self._lock:
            self._next_at = now + PACE
            for commit in plans:
                if commit in refused:
                    commit.window.failed()
                else:
                    commit.window.committed(commit)
            if refused:
                self._refused_until = now + REFUSED_PAUSE
                self._waiting += (future for future in waiting if not future.done())
        if not refused:
            _resolve(waiting)

    async def durable(self) -> None:
        """Return when all that has changed so far is committed; raises `Unavailable`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._is_ended:
                return
            self._waiting.append(future)
        try:
            async with asyncio.timeout(PATIENCE):
                await future
        except TimeoutError as error:
            raise Unavailable(
                f"group of {self._desk.source}: no commit was accepted within {PATIENCE} s"
            ) from error

    def end(self) -> None:
        """Commit no more: the group was left. Nobody is kept waiting."""
        with self._lock:
            self._is_ended = True
            waiting, self._waiting = self._waiting, []
        _resolve(waiting)

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for a commit."""
        return bool(self._waiting)


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        loop = future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
