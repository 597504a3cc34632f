"""CONSUME: a message past its expiry is dead instead of handled."""

from __future__ import annotations

from collections.abc import Awaitable

from callcast.core.outcome import Dead, Outcome
from callcast.core.work import Next, Work
from callcast.ports.clock import Clock

EXPIRED = "expired"


class Expire:
    """``Dead("expired")`` after `Message.expires`, a wall-clock time; None never expires."""

    def __init__(self, clock: Clock) -> None:
        self._wall = clock.wall

    def __call__(self, work: Work, proceed: Next[Outcome], /) -> Awaitable[Outcome]:
        """Do the work unless it is too late."""
        message = work.message
        if message is None or message.expires is None or self._wall() < message.expires:
            return proceed(work)
        return _expired()


async def _expired() -> Outcome:
    return Dead(EXPIRED)
