"""The outbox of one bus as a `Feed`: an ordinary worker relays it."""

from __future__ import annotations

from callcast.core.errors import Misuse
from callcast.ports.broker import Lag, Part, Source
from callcast.ports.tasks import Tasks
from callcast.runtime.outbox_consumer import OutboxConsumer, OutboxSettings
from callcast.runtime.ports import Ports
from callcast.runtime.transaction import Units


class OutboxFeed:
    """Hands out the unsent rows of one bus, in order, to one relay at a time.

    What a `Release` with `after` says holds for the whole outbox: the broker is away. A row that is
    `Later` is tried again for ever, its key waits; one that is `Dead` is parked, its key with it.
    """

    def __init__(
        self,
        units: Units,
        *,
        ports: Ports,
        tasks: Tasks,
        settings: OutboxSettings | None = None,
    ) -> None:
        self._units = units
        self._ports = ports
        self._tasks = tasks
        self._settings = settings or OutboxSettings()
        self._consumers: list[OutboxConsumer] = []
        units.on_commit(self.nudge)

    def nudge(self) -> None:
        """Look now: something was committed."""
        for consumer in self._consumers:
            consumer.nudge()

    async def consume(
        self,
        source: Source,
        *,
        part: Part = Part.READY,
        lease: float = 0.0,
        prefetch: int = 250,
    ) -> OutboxConsumer:
        """Open a consumer; see `Feed.consume`. The lease is the lane's, from the settings."""
        del source, lease
        if part is not Part.READY:
            raise Misuse(f"an outbox has no part {part.value!r}: parked rows are unparked")
        consumer = OutboxConsumer(
            self._units,
            ports=self._ports,
            tasks=self._tasks,
            settings=self._settings,
            prefetch=prefetch,
        )
        self._consumers = [*(c for c in self._consumers if not c.is_closed), consumer]
        return consumer

    async def lag(self, source: Source) -> Lag:
        """What of this bus is not sent yet; `dead` are the parked rows."""
        del source
        leased = sum(consumer.count for consumer in self._consumers)
        for pending in await self._units.outbox.pending(self._units.database):
            if pending.bus == self._units.outbox.bus:
                return Lag(
                    ready=max(0, pending.ready - leased),
                    leased=leased,
                    delayed=pending.delayed,
                    dead=pending.parked,
                    oldest=pending.oldest,
                )
        return Lag(leased=leased)
