"""Mutants for the crash tests: each takes one guard away, and the checks must fail then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crash_places import Lossy, write_down

from callcast.core.outcome import Done, Outcome
from callcast.core.work import Work
from callcast.ports.broker import Consumer, Delivery
from callcast.ports.session import Session
from callcast.runtime.relay import Relay
from callcast.runtime.transaction import Units
from callcast.stores.inbox import Arrival, Inbox, Seen
from callcast.stores.outbox import Outbox
from callcast.testing.faults import Faults


def without_inbox(_folder: Path) -> None:
    async def find(_self: Inbox, _database: object, _arrival: Arrival) -> Seen | None:
        return None

    async def enter(_self: Inbox, _session: Session, _arrival: Arrival) -> Seen | None:
        return None

    Inbox.find = find  # type: ignore[method-assign,assignment]
    Inbox.enter = enter  # type: ignore[method-assign]


def inbox_row_first(_folder: Path) -> None:
    """The inbox row in a transaction of its own, before the handler."""
    unit = Units.unit
    find = Inbox.find

    async def finding(self: Inbox, database: object, arrival: Arrival) -> Seen | None:
        seen = await find(self, database, arrival)  # type: ignore[arg-type]
        if seen is None:
            async with database.begin() as session:  # type: ignore[attr-defined]
                await self.enter(session, arrival)
        return seen

    def bare(self: Units, _arrival: Arrival | None) -> object:
        return unit(self, None)

    Inbox.find = finding  # type: ignore[method-assign,assignment]
    Units.unit = bare  # type: ignore[method-assign,assignment]


def without_fence(folder: Path) -> None:
    mark = Outbox.mark

    async def is_mine(_self: Outbox, _session: Session, _epoch: int) -> bool:
        return True

    async def marking(self: Outbox, session: Session, epoch: int, ids: Sequence[int]) -> int:
        """Mark whatever the epoch; the one handed in is what is written down."""
        (row,) = await session.fetch("select max(epoch) from callcast_outbox_lane")
        changed = await mark(self, session, int(str(row[0])), ids)
        write_down(folder, epoch, row[0], changed)
        return changed

    Outbox.is_mine = is_mine  # type: ignore[method-assign]
    Outbox.mark = marking  # type: ignore[method-assign]


def mark_before_publish(_folder: Path) -> None:
    run = Relay.run

    async def running(self: Relay, work: Work) -> Outcome:
        units = self._units
        async with units.database.begin() as session:
            (row,) = await session.fetch(
                "select o.id, max(l.epoch) from callcast_outbox o, callcast_outbox_lane l"
                " where o.message_id = ?",
                work.id,
            )
            await units.outbox.mark(session, int(str(row[1])), [int(str(row[0]))])
        return await run(self, work)

    Relay.run = running  # type: ignore[method-assign]


def ack_before_commit(_folder: Path) -> None:
    """Acknowledge at receipt."""
    init = Lossy.__init__

    def eager(self: Lossy, consumer: Consumer, reach: Faults) -> None:
        init(self, consumer, reach)
        fetch = consumer.fetch

        async def fetching(limit: int, wait: float) -> Sequence[Delivery]:
            batch = await fetch(limit, wait)
            await consumer.settle([(delivery, Done()) for delivery in batch])
            return batch

        self.fetch = fetching

    async def ignoring(self: Lossy, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None: ...

    Lossy.__init__ = eager  # type: ignore[method-assign]
    Lossy.settle = ignoring  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[Path], None]] = {
    "": lambda _folder: None,
    "without_inbox": without_inbox,
    "inbox_row_first": inbox_row_first,
    "without_fence": without_fence,
    "mark_before_publish": mark_before_publish,
    "ack_before_commit": ack_before_commit,
}
