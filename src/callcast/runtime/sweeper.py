"""Purging the inbox: rows that no redelivery can ask for any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from callcast.core.errors import CallcastError
from callcast.ports.broker import Feed, Source
from callcast.runtime.transaction import Units

PURGE_BATCH = 500
"""Rows of one transaction: others write in between."""
EVERY = 3600.0
"""Seconds between two purges: against days of retention an hour is nothing."""


class Sweeper:
    """Purges the inbox of each consumer of a service once an hour.

    It never passes the oldest message that still waits for the consumer, delayed or dead: whatever
    comes again is known. A broker or database that is away leaves it to the next hour.
    """

    def __init__(self, units: Units, feed: Feed, *, retention: float) -> None:
        self._units = units
        self._feed = feed
        self._retention = retention
        self._sources: dict[str, list[Source]] = {}

    def add(self, consumer: str, source: Source | None) -> None:
        """Purge this consumer too; `source` is where its messages wait, None for calls."""
        sources = self._sources.setdefault(consumer, [])
        if source is not None:
            sources.append(source)

    async def run(self) -> None:
        """Purge now and then until cancelled."""
        while True:
            await self._units.ports.clock.sleep(EVERY)
            await self.sweep()

    async def sweep(self) -> None:
        """Purge all consumers once."""
        for consumer, sources in self._sources.items():
            try:
                await sweep(
                    self._units,
                    consumer,
                    retention=self._retention,
                    oldest=partial(self._oldest, sources),
                )
            except CallcastError:
                continue  # rows that stay too long harm nobody; the next hour tries again

    async def _oldest(self, sources: list[Source]) -> float:
        return max([(await self._feed.lag(source)).oldest for source in sources], default=0.0)


async def sweep(
    units: Units, consumer: str, *, retention: float, oldest: Callable[[], Awaitable[float]]
) -> int:
    """Purge the inbox of one consumer of rows older than `retention` seconds; how many went.

    `oldest` gives the age in seconds of the oldest message that still waits for this consumer,
    delayed and dead ones included (`Lag.oldest`): the purge never passes it.
    """
    swept = 0
    age = max(retention, await oldest())
    while True:
        async with units.database.begin() as session:
            batch = await units.inbox.purge(session, consumer, retention=age, limit=PURGE_BATCH)
            units.ports.failpoints("inbox.in_purge")
        swept += batch
        if batch < PURGE_BATCH:
            return swept
