"""Committing: one at a time, each with all that changed meanwhile.

| state     | something changed | PACE has passed | accepted        | refused         |
|-----------|-------------------|-----------------|-----------------|-----------------|
| idle      | under way, or due | -               | -               | -               |
| due       | due               | under way       | -               | -               |
| under way | under way         | -               | idle            | due             |

The member's thread drives it, and is told the driver's answers; `durable` is for event loops.
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
        send: Callable[[Sequence[Commit]], bool],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._lock = lock
        self._send = send
        self._clock = clock
        self._under_way: list[Commit] | None = None
        self._next_at = -math.inf
        self._asked = 0  # how many times somebody asked for a commit
        self._covered = 0  # of those, the ones that the commit under way answers
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # by when they asked
        self._is_ended = False

    def pump(self) -> None:
        """Commit what there is, unless one is under way or it is too early."""
        now = self._clock.now()
        with self._lock:
            is_early = now < self._next_at and not self._waiting
            if self._under_way is not None or is_early or self._is_ended:
                return
            done: list[asyncio.Future[None]] = []
            plans = self._desk.plans(now)
            if plans:
                self._under_way = plans
                self._covered = self._asked
                self._next_at = now + PACE
            else:  # what somebody waits for went with an earlier commit
                done, self._waiting = [future for _, future in self._waiting], []
        if not plans:
            _resolve(done)
        elif not self._send(plans):
            self.answered(is_accepted=False)

    def answered(self, *, is_accepted: bool) -> None:
        """Note the server's answer."""
        with self._lock:
            commits, self._under_way = self._under_way, None
            for commit in commits or ():
                if is_accepted:
                    commit.window.committed(commit)
                else:
                    commit.window.failed()
            if not is_accepted:
                self._next_at = self._clock.now() + REFUSED_PAUSE
                return
            done = [future for asked, future in self._waiting if asked <= self._covered]
            self._waiting = [pair for pair in self._waiting if pair[0] > self._covered]
        _resolve(done)
        self.pump()

    async def durable(self) -> None:
        """Return when all that has changed so far is committed; raises `Unavailable`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._asked += 1
            self._waiting.append((self._asked, future))
        try:
            async with asyncio.timeout(PATIENCE):
                await future
        except TimeoutError as error:
            raise Unavailable(
                f"group of {self._desk.source}: no commit was accepted within {PATIENCE} s"
            ) from error
        finally:
            with self._lock:
                self._waiting = [pair for pair in self._waiting if pair[1] is not future]

    def end(self) -> None:
        """Commit no more: the group was left. Nobody is kept waiting."""
        with self._lock:
            self._is_ended = True
            waiting = [future for _, future in self._waiting]
            self._waiting.clear()
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
