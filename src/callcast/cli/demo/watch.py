"""What the services say about themselves: facts from their logs, counts from broker and ledgers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from callcast.cli.demo.house import House
from callcast.cli.demo.ledgers import Ledgers
from callcast.ports.broker import Broker, Lag

PACKER = "shop.fulfilment"
"""The logger on which fulfilment says which order it begins to pack."""


class Numbers(Struct, frozen=True, kw_only=True):
    """The moment, for the live view."""

    elapsed: float = 0.0
    sent: int = 0
    confirmed: int = 0
    refused: int = 0
    calls: int = 0
    """Answered well by inventory and payments."""
    casts: int = 0
    """Handled there: what undoes an attempt that failed."""
    parcels: int = 0
    mails: int = 0
    ready: int = 0
    in_flight: int = 0
    delayed: int = 0
    dead: int = 0
    breakers: Mapping[str, str] = {}


class Watch:
    """Reads on; `look` is to be called again and again."""

    def __init__(self, house: House, broker: Broker) -> None:
        self._house = house
        self._broker = broker
        self.ledgers: Ledgers = Ledgers(house.database)
        self.timeouts: int = 0
        """Attempts to ask payments that took too long."""
        self.failures: int = 0
        """Attempts to ask payments that it answered with an error."""
        self.opened: int = 0
        """Times that a breaker opened."""
        self.duplicates: int = 0
        """Messages that an inbox of the shop knew already."""
        self.begun: set[str] = set()
        """Orders that fulfilment has begun to pack."""
        self.breakers: dict[str, str] = {}

    def look(self) -> None:
        """Take in what the services have logged since the last look."""
        for process in self._house.services.values():
            for record in process.log.news():
                self._take(record)

    async def numbers(self) -> Numbers:
        """Counts from broker and ledgers."""
        total: Counter[str] = Counter()
        for lag in await self.lags():
            total.update(ready=lag.ready, in_flight=lag.leased, delayed=lag.delayed, dead=lag.dead)
        count = self.ledgers.count
        return Numbers(
            calls=count("holds") + count("charges"),
            casts=count("released") + count("voided"),
            parcels=count("parcels"),
            mails=count("mails"),
            ready=total["ready"],
            in_flight=total["in_flight"],
            delayed=total["delayed"],
            dead=total["dead"],
            breakers=dict(self.breakers),
        )

    async def lags(self) -> Sequence[Lag]:
        """Of all of the shop's sources."""
        return [await self._broker.lag(source) for source in self._house.ground.sources]

    def in_hand(self) -> set[str]:
        """Orders that fulfilment has begun to pack and that have no parcel.

        From its log and its ledger: not every broker tells what a worker of another process holds.
        """
        self.look()
        return self.begun - set(self.ledgers.rows("parcels"))

    async def is_quiet(self) -> bool:
        """Whether nothing waits, runs or is delayed anywhere; dead letters may lie."""
        busy = [lag for lag in await self.lags() if lag.ready or lag.leased or lag.delayed]
        return not busy and not self.ledgers.unsent(list(self._house.services))

    def _take(self, record: Mapping[str, object]) -> None:
        event = record.get("event")
        if event == "retry decided" and record.get("peer") == "payments":
            self.timeouts += record.get("error") == "Unanswered"
            self.failures += record.get("error") == "Remote"
        elif event == "circuit changed":
            state = str(record.get("after"))
            self.breakers[str(record.get("peer"))] = state
            self.opened += state == "open"
        elif event == "duplicate seen":
            self.duplicates += 1
        elif record.get("logger") == PACKER:
            self.begun.add(str(record.get("message")).removeprefix("packing "))
