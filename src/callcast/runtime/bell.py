"""A bell: one waits for it, anybody rings it; cheap when nobody waits."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes the one who waits; a ring that nobody waits for is forgotten.

    So whoever waits looks first whether there is a reason to, with no `await` in between.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: asyncio.Future[None] | None = None
        """Not None while somebody waits: to be looked at where a call for nothing is too dear."""

    def ring(self) -> None:
        """Wake whoever waits."""
        waiting, self.waiting = self.waiting, None
        # One whose waiter was cancelled in this turn of the loop is done already.
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def wait(self) -> None:
        """Return at the next ring."""
        waiting = self.waiting = asyncio.get_running_loop().create_future()
        try:
            await waiting
        finally:
            if self.waiting is waiting:  # else the next one waits already
                self.waiting = None
