"""The outbox: messages that leave after the commit, never without it.

A row is pending (0), published (1) or parked (2). Of each key only the oldest unsent row is
`is_head`; rows without a key are heads at once. A relay is handed heads only, so that a key that
waits or is parked holds its followers back without touching them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.ports.session import Database, Session
from callcast.stores.outbox_texts import TEXTS, VERSION, OutboxTexts
from callcast.stores.schema import create, text_for

KEY_SEQ = "callcast-key-seq"
"""Header: the n-th message of its key, without gaps; shows loss and reordering."""

LANE = 0
"""SQLite has one writer, so one relay: a single lane."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Entry(Struct, frozen=True):
    """A row on its way to the broker."""

    id: int
    attempts: int
    message: Message


class Lane(Struct, frozen=True):
    """Who relays a bus: `left` seconds of lease, 0 or less when it is free."""

    epoch: int
    left: float
    owner: str


class Parked(NamedTuple):
    """A row that the broker will never take as it is; it holds its key."""

    bus: str
    id: str
    """Of the message."""
    topic: str
    key: str | None
    attempts: int
    error: str
    age: float
    """Seconds."""
    behind: int
    """How many rows of its key wait behind it."""
    message: Message


_ParkedFields: TypeAlias = tuple[str, str, str, str | None, int, str, float, int]


class Pending(Struct, frozen=True):
    """What of one bus is not sent yet."""

    bus: str
    ready: int
    delayed: int
    """Backing off, or behind one that does; also those behind a parked one."""
    parked: int
    oldest: float
    """Age in seconds of the oldest unsent row; 0 when there is none."""


class Outbox:
    """The statements of one bus's outbox, on whatever session they are given."""

    def __init__(self, dialect: str, bus: str) -> None:
        self.bus = bus
        self._texts: OutboxTexts = text_for(TEXTS, dialect)

    async def create(self, session: Session) -> None:
        """Make the tables, and the lane by which this bus is known to have a relay."""
        await create(session, "outbox", version=VERSION, statements=self._texts.tables)
        await session.execute(self._texts.add_lane, self.bus, LANE)

    async def add(self, session: Session, messages: Sequence[Message]) -> None:
        """Write messages, in their order per key; keys sorted, so that no two writers deadlock.

        The same message again changes nothing. Raises `Misuse` for an id that another message of
        this bus has.
        """
        for message in sorted(messages, key=_by_key):
            await self._add(session, message)

    async def due(
        self,
        database: Database,
        limit: int,
        *,
        retried: int,
        hidden: AbstractSet[int] = frozenset(),
    ) -> Sequence[Entry]:
        """The next `limit` heads: up to `retried` that were tried before, then fresh ones.

        The rows in `hidden` are out already: most often they are the oldest, so that they are read
        in vain, and only that.
        """
        texts, out = self._texts, len(hidden)
        again = await database.read(texts.due_again, self.bus, LANE, retried + out)
        again = [row for row in again if row[0] not in hidden][:retried]
        fresh = await database.read(texts.due_fresh, self.bus, LANE, limit + out)
        rows = [*again, *(row for row in fresh if row[0] not in hidden)][:limit]
        return [
            Entry(cast("int", id_), cast("int", attempts), _decode(cast("bytes", message)))
            for id_, attempts, message in rows
        ]

    async def lane(self, database: Database) -> Lane:
        """Who relays this bus now."""
        rows = await database.read(self._texts.lane, self.bus, LANE)
        epoch, left, owner = rows[0]
        return Lane(cast("int", epoch), cast("float", left), cast("str", owner))

    async def take(
        self, session: Session, owner: str, *, lease: float, former: str = ""
    ) -> int | None:
        """Take the lane when its lease is over, or from its `former` owner, known to be gone.

        The new epoch, or None while another has it.
        """
        rows = await session.fetch(self._texts.take, owner, lease, self.bus, LANE, former or None)
        return cast("int", rows[0][0]) if rows else None

    async def renew(self, session: Session, epoch: int, lease: float) -> bool:
        """Extend the lease by `lease` seconds from now; False when the lane is another's."""
        return await session.execute(self._texts.renew, lease, self.bus, LANE, epoch) == 1

    async def is_mine(self, session: Session, epoch: int) -> bool:
        """Whether the lane still has this epoch."""
        return bool(await session.fetch(self._texts.fence, self.bus, LANE, epoch))

    async def mark(self, session: Session, epoch: int, ids: Sequence[int]) -> int:
        """Mark rows as published, and let their keys go on; how many rows, 0 behind the fence."""
        listed = msgspec.json.encode(ids).decode()
        changed = await session.execute(self._texts.mark, listed, self.bus, LANE, epoch)
        if changed:
            await session.execute(self._texts.promote, listed)
        return changed

    async def put_off(self, session: Session, id: int, *, delay: float, error: str) -> None:
        """Try a row again after `delay` seconds; its key waits with it."""
        await session.execute(self._texts.put_off, delay, error, id)

    async def park(self, session: Session, id: int, error: str) -> None:
        """Park a row, and with it its key, until `unpark`."""
        await session.execute(self._texts.park, error, id)

    async def unpark(self, session: Session) -> int:
        """Try all parked rows of this bus again; how many."""
        return await session.execute(self._texts.unpark, self.bus)

    async def exists(self, database: Database) -> bool:
        """Whether this database has an outbox at all."""
        return bool(await database.read(self._texts.exists))

    async def parked(self, database: Database) -> Sequence[Parked]:
        """The parked rows of all buses, oldest first."""
        rows = await database.read(self._texts.parked)
        return [
            Parked(*cast("_ParkedFields", row[:-1]), _decode(cast("bytes", row[-1])))
            for row in rows
        ]

    async def skip(self, session: Session, message_id: str) -> bool:
        """Give up a parked row for good and let its key go on; False when none is parked.

        The message is lost with it, because somebody has said so.
        """
        rows = await session.fetch(self._texts.skip, self.bus, message_id)
        if rows:
            await session.execute(self._texts.promote_key, self.bus, *rows[0])
        return bool(rows)

    async def pending(self, database: Database) -> Sequence[Pending]:
        """What is not sent yet, per bus: also of buses that nobody relays."""
        rows = await database.read(self._texts.pending)
        return [msgspec.convert(row, Pending, from_attributes=False) for row in map(_named, rows)]

    async def clean(self, session: Session, retention: float, limit: int) -> int:
        """Delete up to `limit` rows published more than `retention` seconds ago; how many."""
        return await session.execute(self._texts.clean, retention, limit)

    async def buses(self, session: Session) -> Sequence[str]:
        """The buses that have or had a relay on this database."""
        return [cast("str", row[0]) for row in await session.fetch(self._texts.buses)]

    async def _add(self, session: Session, message: Message) -> None:
        texts, bus = self._texts, self.bus
        sequence: int | None = None
        if message.key is not None:
            rows = await session.fetch(texts.next_seq, bus, message.topic, message.key)
            sequence = cast("int", rows[0][0])
            message = replace(message, headers={**message.headers, KEY_SEQ: str(sequence)})
        else:
            message = replace(message, headers=dict(message.headers))
        added = await session.execute(
            texts.insert,
            message.id,
            bus,
            LANE,
            message.topic,
            message.key,
            sequence,
            _encode(message),
        )
        if not added:
            await self._known(session, message)

    async def _known(self, session: Session, message: Message) -> None:
        texts, bus = self._texts, self.bus
        if message.key is not None:
            await session.execute(texts.undo_seq, bus, message.topic, message.key)
        rows = await session.fetch(texts.by_id, bus, message.id)
        other = _decode(cast("bytes", rows[0][0]))
        if (other.topic, other.key, other.body) != (message.topic, message.key, message.body):
            raise Misuse(
                f"message id {message.id!r} is in the outbox already, for another message"
                f" ({other.topic!r}): an id is for one message, for ever"
            )


def _by_key(message: Message) -> tuple[str, str]:
    return ("", "") if message.key is None else (message.topic, message.key)


def _named(row: Sequence[object]) -> Mapping[str, object]:
    return dict(zip(Pending.__struct_fields__, row, strict=True))
