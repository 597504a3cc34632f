"""The inbox: what was handled already, so that a second delivery changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Struct

from callcast.core.message import Message
from callcast.ports.session import Database, Row, Session
from callcast.stores.schema import create, sqlite, text_for

VERSION = 1


class Arrival(Struct, frozen=True):
    """What is handled once: a message or call at a consumer, and a hash of its payload."""

    consumer: str
    source: str
    message_id: str
    payload_hash: bytes


def payload_hash(name: str, payload: bytes) -> bytes:
    """What tells a repeat from another payload under the same id."""
    return hashlib.sha256(name.encode() + b"\0" + payload).digest()


def arrival_of(message: Message, consumer: str) -> Arrival:
    """What a message is to a consumer."""
    payload = payload_hash(message.type, message.body)
    return Arrival(consumer, message.source, message.id, payload)


class Seen(Struct, frozen=True):
    """An arrival whose effect is committed."""

    payload_hash: bytes
    reply: bytes | None


class InboxTexts(Struct, frozen=True):
    """One statement per step."""

    tables: Sequence[str]
    find: str
    enter: str
    keep_reply: str
    watermark: str
    purge: str
    raise_watermark: str


SQLITE = InboxTexts(
    tables=(
        sqlite("""create table callcast_inbox (
            consumer text not null,
            source text not null,
            message_id text not null,
            payload_hash blob not null,
            outcome integer not null default 1,
            reply blob,
            processed_at real not null default NOW,
            primary key (consumer, source, message_id)) without rowid"""),
        "create index callcast_inbox_processed on callcast_inbox (consumer, processed_at)",
        """create table callcast_inbox_purge (
            consumer text primary key, watermark real not null) without rowid""",
    ),
    find="""select payload_hash, reply from callcast_inbox
        where consumer = ? and source = ? and message_id = ?""",
    enter="""insert into callcast_inbox (consumer, source, message_id, payload_hash)
        values (?, ?, ?, ?) on conflict do nothing""",
    keep_reply="""update callcast_inbox set reply = ?
        where consumer = ? and source = ? and message_id = ?""",
    watermark="select watermark from callcast_inbox_purge where consumer = ?",
    purge=sqlite("""delete from callcast_inbox where (consumer, source, message_id) in (
        select consumer, source, message_id from callcast_inbox
        where consumer = ? and processed_at < NOW - ? order by processed_at limit ?)"""),
    raise_watermark=sqlite("""insert into callcast_inbox_purge values (?, NOW - ?)
        on conflict do update set watermark = max(watermark, excluded.watermark)"""),
)

TEXTS: Mapping[str, InboxTexts] = {"sqlite": SQLITE}


class Inbox:
    """The statements of the inbox, on whatever session they are given."""

    def __init__(self, dialect: str) -> None:
        self._texts: InboxTexts = text_for(TEXTS, dialect)

    async def create(self, session: Session) -> None:
        """Make the tables; idempotent."""
        await create(session, "inbox", version=VERSION, statements=self._texts.tables)

    async def find(self, database: Database, arrival: Arrival) -> Seen | None:
        """Look, outside any transaction, whether its effect is committed."""
        return _seen(await database.read(self._texts.find, *_place(arrival)))

    async def knows(self, database: Database, arrival: Arrival) -> bool:
        """Whether the effect of this very payload is committed."""
        seen = await self.find(database, arrival)
        return seen is not None and seen.payload_hash == arrival.payload_hash

    async def enter(self, session: Session, arrival: Arrival) -> Seen | None:
        """Write its row, first of all in its transaction; what is there when it was known."""
        if await session.execute(self._texts.enter, *_place(arrival), arrival.payload_hash):
            return None
        return _seen(await session.fetch(self._texts.find, *_place(arrival)))

    async def keep_reply(self, session: Session, arrival: Arrival, reply: bytes) -> None:
        """Keep the answer beside the row: a repeated call gets it instead of running again."""
        await session.execute(self._texts.keep_reply, reply, *_place(arrival))

    async def watermark(self, database: Database, consumer: str) -> float:
        """Wall-clock time before which rows of this consumer may be gone; 0 when none are."""
        rows = await database.read(self._texts.watermark, consumer)
        return cast("float", rows[0][0]) if rows else 0.0

    async def purge(self, session: Session, consumer: str, *, retention: float, limit: int) -> int:
        """Delete up to `limit` rows older than `retention` seconds; how many.

        The watermark moves in the same transaction, before the rows go.
        """
        await session.execute(self._texts.raise_watermark, consumer, retention)
        return await session.execute(self._texts.purge, consumer, retention, limit)


def _place(arrival: Arrival) -> tuple[str, str, str]:
    return arrival.consumer, arrival.source, arrival.message_id


def _seen(rows: Sequence[Row]) -> Seen | None:
    if not rows:
        return None
    payload_hash, reply = rows[0]
    return Seen(cast("bytes", payload_hash), cast("bytes | None", reply))
