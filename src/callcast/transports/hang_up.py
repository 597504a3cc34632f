"""Noticing that a caller hung up while its request is being served."""

from __future__ import annotations

import asyncio

from starlette.types import Receive


class HangUp:
    """Cancels the task that made it when the caller hangs up; what it awaits ends with it.

    Most handlers are done before it looks: only after `after` seconds it starts to listen. So a
    quick request costs one timer (0.6 us), and not a task (9 us).
    """

    __slots__ = ("_receive", "_served", "_timer", "_watch", "is_over", "is_seen")

    def __init__(self, receive: Receive, after: float) -> None:
        loop = asyncio.get_running_loop()
        self._receive = receive
        self._served = asyncio.current_task()
        self._timer = loop.call_later(after, self._start, loop)
        self._watch: asyncio.Task[None] | None = None  # made by the timer, ended by close()
        self.is_over: bool = False
        self.is_seen: bool = False
        """Whether the cancellation that the task sees, or saw, is this one's."""

    async def close(self) -> None:
        """Stop listening; takes its own request to cancel back, and nobody else's."""
        self.is_over = True
        self._timer.cancel()
        if self.is_seen and self._served is not None:
            self._served.uncancel()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = loop.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # the end of a body that nobody reads
        if not self.is_over and self._served is not None:
            self.is_seen = True
            self._served.cancel()
