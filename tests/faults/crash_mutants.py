"""Mutants for the crash tests: each takes one guard away, and the checks must fail then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crash_places import Lossy, write_down
from msgspec.structs import replace

from callcast.brokers.sqlite import letters
from callcast.core.errors import CommitUnknown, Unavailable
from callcast.core.message import Message
from callcast.core.outcome import Dead, Done, Later, Outcome, Release
from callcast.core.work import Work
from callcast.ports.broker import Consumer, Delivery
from callcast.ports.session import Session
from callcast.runtime.inbox import Inbox as InboxLayer
from callcast.runtime.outbox_consumer import OutboxConsumer
from callcast.runtime.relay import Relay
from callcast.runtime.transaction import Units
from callcast.runtime.unit import Unit
from callcast.stores import outbox
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

    async def ignoring(self: Lossy, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        if any(isinstance(outcome, Dead) for _, outcome in verdicts):
            self._reach("inbox.before_dead")

    Lossy.__init__ = eager  # type: ignore[method-assign]
    Lossy.settle = ignoring  # type: ignore[method-assign]


def outbox_apart(_folder: Path) -> None:
    """The outbox rows in a transaction of their own, after that of the business rows."""
    commit = Unit.commit

    async def committing(self: Unit, reply: bytes | None, nudge: Callable[[], None]) -> None:
        held, self._held = self._held, []
        await commit(self, reply, nudge)
        async with self._database.begin() as session:
            await self._outbox.add(session, held)

    Unit.commit = committing  # type: ignore[method-assign]


def unknown_is_failure(_folder: Path) -> None:
    """A commit whose reply was lost is called a failure: nothing happened."""
    commit = Units.commit

    async def committing(self: Units, unit: Unit, reply: bytes | None = None) -> None:
        try:
            await commit(self, unit, reply)
        except CommitUnknown as error:
            raise Unavailable("nothing happened") from error

    Units.commit = committing  # type: ignore[method-assign]


def without_poll(_folder: Path) -> None:
    """A relay that waits for a nudge."""

    async def resting(self: OutboxConsumer, _left: float) -> None:
        await self._nudged.wait()

    OutboxConsumer._rest = resting  # type: ignore[method-assign]


def lane_for_ever(_folder: Path) -> None:
    """A lane is its first relay's for ever."""
    take = Outbox.take

    async def taking(self: Outbox, session: Session, owner: str, **more: object) -> int | None:
        (row,) = await session.fetch("select owner from callcast_outbox_lane")
        return None if row[0] else await take(self, session, owner, **more)  # type: ignore[arg-type]

    Outbox.take = taking  # type: ignore[method-assign,assignment]


def without_heads(_folder: Path) -> None:
    """Rows of one key leave side by side; the last ones first, for all to see."""
    wrong = replace(
        outbox.TEXTS["sqlite"],
        insert=outbox.TEXTS["sqlite"].insert.replace("?5 is null or not exists", "true or exists"),
        due_fresh=outbox.TEXTS["sqlite"].due_fresh.replace("order by id", "order by id desc"),
    )
    outbox.TEXTS = {"sqlite": wrong}


def unroutable_is_done(_folder: Path) -> None:
    """What nobody hears counts as published."""
    run = Relay.run

    async def running(self: Relay, work: Work) -> Outcome:
        outcome = await run(self, work)
        return Done() if isinstance(outcome, Later) else outcome

    Relay.run = running  # type: ignore[method-assign]


def refusal_is_transient(_folder: Path) -> None:
    """What will never be taken is tried for ever."""
    run = Relay.run

    async def running(self: Relay, work: Work) -> Outcome:
        outcome = await run(self, work)
        return Later(0.0, outcome.reason) if isinstance(outcome, Dead) else outcome

    Relay.run = running  # type: ignore[method-assign]


def refusal_parks_nothing(_folder: Path) -> None:
    """A refused row is dropped, and its key goes on without it."""
    run = Relay.run

    async def running(self: Relay, work: Work) -> Outcome:
        outcome = await run(self, work)
        return Done() if isinstance(outcome, Dead) else outcome

    Relay.run = running  # type: ignore[method-assign]


def clean_takes_all(_folder: Path) -> None:
    """The cleanup does not look at the state of a row."""
    sql = "delete from callcast_outbox where ?1 > 0 and ?2 > 0"
    outbox.TEXTS = {"sqlite": replace(outbox.TEXTS["sqlite"], clean=sql)}


def without_quarantine(_folder: Path) -> None:
    """What the inbox has forgotten is taken for new."""

    async def forgotten(_self: InboxLayer, _message: Message) -> bool:
        return False

    InboxLayer._is_forgotten = forgotten  # type: ignore[method-assign]


def letters_pile_up(_folder: Path) -> None:
    """Each time that a message dies makes a letter."""
    letters.collapse = lambda *_, **__: None


def release_counts(_folder: Path) -> None:
    """What could not be handled for want of a database has failed."""
    settle = Lossy.settle

    async def counting(self: Lossy, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        later = [
            (delivery, Later(0.1) if isinstance(outcome, Release) else outcome)
            for delivery, outcome in verdicts
        ]
        await settle(self, later)

    Lossy.settle = counting  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[Path], None]] = {
    "": lambda _folder: None,
    **{
        mutant.__name__: mutant
        for mutant in (
            without_inbox,
            inbox_row_first,
            without_fence,
            mark_before_publish,
            ack_before_commit,
            outbox_apart,
            unknown_is_failure,
            without_poll,
            lane_for_ever,
            without_heads,
            unroutable_is_done,
            refusal_is_transient,
            refusal_parks_nothing,
            clean_takes_all,
            without_quarantine,
            letters_pile_up,
            release_counts,
        )
    },
}
