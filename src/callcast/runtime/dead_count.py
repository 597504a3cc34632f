"""How many dead letters count: not those whose effect is there, and of copies only one.

A message may die and be handled all the same: another copy of it was delivered. Its letter asks
for nothing any more, and must not keep an alarm ringing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from callcast.core.errors import CallcastError
from callcast.core.message import Message
from callcast.ports.broker import Broker, Browses, Consumer, Glimpse, Lag, Part, Source
from callcast.ports.clock import Clock

IsHandled: TypeAlias = Callable[[Message], Awaitable[bool]]
"""Whether an inbox knows this message."""

PAGE = 1_000
LOOKED_MAX = 10_000
"""So many letters of one source are looked at; those behind them count as they are."""
LOOK_EVERY = 60.0
"""Seconds for which a worker believes its last look while as many letters are dead."""
LOOK_MAX = 2.0
"""Seconds that a worker gives one look; past them all letters count."""


async def dead_count(
    broker: Broker, source: Source, dead: int, *, is_handled: IsHandled | None
) -> int:
    """How many of the `dead` letters of this source count. Nothing is consumed.

    Raises what browsing and the inbox raise.
    """
    can_differ = is_handled is not None or not broker.traits.collapses_letters
    if not dead or not can_differ or not isinstance(broker, Browses):
        return dead
    seen: set[tuple[str, str, bytes]] = set()
    void = looked = 0
    after = ""
    while looked < LOOKED_MAX and (page := await _page(broker, source, after)):
        for glimpse in page:
            message = glimpse.message
            copy = (message.source, message.id, message.body)
            void += copy in seen or (is_handled is not None and await is_handled(message))
            seen.add(copy)
        looked, after = looked + len(page), page[-1].position
    return max(0, dead - void)


async def _page(broker: Browses, source: Source, after: str) -> Sequence[Glimpse]:
    return await broker.browse(source, part=Part.DEAD, after=after, limit=PAGE)


class Counted:
    """A broker as a worker with an inbox sees it: `Lag.dead` is what counts.

    When the look fails, or takes too long, all letters count: a lag is needed now.
    """

    def __init__(self, broker: Broker, clock: Clock, is_handled: IsHandled) -> None:
        self._broker = broker
        self._clock = clock
        self._is_handled = is_handled
        self._known: dict[str, tuple[int, int, float]] = {}  # dead, counted, until

    async def consume(
        self,
        source: Source,
        *,
        part: Part = Part.READY,
        lease: float = 60.0,
        prefetch: int = 250,
    ) -> Consumer:
        """Open a consumer of one part of a source; `lease` in seconds."""
        return await self._broker.consume(source, part=part, lease=lease, prefetch=prefetch)

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind."""
        lag = await self._broker.lag(source)
        return replace(lag, dead=await self._counted(source, lag.dead)) if lag.dead else lag

    async def _counted(self, source: Source, dead: int) -> int:
        now = self._clock.now()
        known = self._known.get(str(source))
        if known is not None and known[0] == dead and now < known[2]:
            return known[1]
        try:
            with self._clock.expire_at(now + LOOK_MAX):
                counted = await dead_count(self._broker, source, dead, is_handled=self._is_handled)
        except (CallcastError, TimeoutError):
            counted = dead
        self._known[str(source)] = (dead, counted, now + LOOK_EVERY)
        return counted
