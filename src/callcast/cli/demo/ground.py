"""What the demo stands on: a broker's file of its own, or a server that others may use too.

On a server it leaves nothing behind but topics without groups, and touches nothing that was there:
when the shop's groups are there already, somebody's shop runs on it, and the demo does not begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from callcast.cli.failure import Failure
from callcast.cli.loading import load
from callcast.cli.needs import needs_of
from callcast.cli.output import note
from callcast.core.errors import CallcastError
from callcast.ports.broker import Broker, Browses, Retires, Source, need
from callcast.ports.clock import Clock
from callcast.runtime import registry

SERVICES = ("orders", "inventory", "payments", "fulfilment", "notifications")

KEPT = 600
"""Seconds for which everything published is kept, so that it can be sent again."""
KEEPERS = ("sqlite", "amqp", "amqps")
"""Schemes whose brokers keep nothing unless they are told to."""
SESSION = 6
"""Seconds after which Kafka takes a killed worker for dead: the least that a server allows."""
PARTITIONS = 2
"""Of Kafka's topics: one process works for each group, and a server makes them one by one."""

CLEAR = 60.0
"""Seconds within which a server forgets workers that were killed, so that their groups can end."""
LOOK = 0.5


class Ground:
    """The broker of one demo: `url` for its services, `sources` that are the shop's own there."""

    def __init__(self, given: str | None, folder: Path) -> None:
        self.is_own: bool = given is None
        """The file goes with the demo's folder: there is nothing to find and nothing to clear."""
        self.url: str = _fit(given or f"sqlite:///{folder / 'demo.db'}")
        services = {name: load(f"shop.{name}:service") for name in SERVICES}
        self.sources: Sequence[Source] = list(needs_of(services).sources)

    def open(self, clock: Clock) -> Broker:
        """The broker, for looking at it from outside."""
        return registry.open_broker(self.url, clock)

    async def take(self, clock: Clock) -> None:
        """Make sure that nobody's shop is there; a `Failure` when one is, or nobody answers."""
        if self.is_own:
            return
        broker = self.open(clock)
        try:
            there = await self._there(broker)
        finally:
            await broker.close()
        if there:
            groups = sorted({source.group for source in there})
            raise Failure(
                f"this broker has the groups of a shop already ({', '.join(groups)}): another demo"
                " runs on it, one was killed, or the shop is yours",
                fix="an empty vhost or another server; or, if they are nobody's,"
                f" callcast topology retire {groups[0]} --yes, and so on",
            )

    async def clear(self, clock: Clock) -> None:
        """End the shop's groups; what cannot be ended is said."""
        if self.is_own:
            return
        broker = self.open(clock)
        try:
            await self._retire(broker, clock)
        except CallcastError as error:
            note(f"the demo's groups are left on the broker: {error}")
        finally:
            await broker.close()

    async def _there(self, broker: Broker) -> Sequence[Source]:
        names = {str(source) for source in self.sources}
        return [one for one in await need(broker, Browses).sources() if str(one) in names]

    async def _retire(self, broker: Broker, clock: Clock) -> None:
        retires = need(broker, Retires)
        until = clock.now() + CLEAR
        left = list(await self._there(broker))
        while left:
            try:
                await retires.retire(left[-1])
                left.pop()
            except CallcastError:
                if clock.now() > until:
                    raise
                await clock.sleep(LOOK)


def _fit(url: str) -> str:
    """The URL with what a demo needs, where nothing was said of it: a log, and short waits."""
    parts = urlsplit(url)
    if parts.scheme == "memory":
        raise Failure(
            "a memory:// broker lives inside one process, and the demo has five",
            fix="callcast demo, or --broker amqp://... or kafka://...",
        )
    more = {"retain": KEPT} if parts.scheme in KEEPERS else {}
    if parts.scheme in {"kafka", "kafkas"}:
        more = {"session": SESSION, "partitions": PARTITIONS}
    wanted = [f"{name}={said}" for name, said in more.items() if f"{name}=" not in parts.query]
    if not wanted:
        return url
    return f"{url}{'&' if parts.query else '?'}{'&'.join(wanted)}"
