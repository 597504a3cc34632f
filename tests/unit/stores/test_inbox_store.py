"""The inbox's statements on a real SQLite database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from callcast.runtime.clock import AsyncioClock
from callcast.sessions.sqlite import SqliteDatabase
from callcast.stores.inbox import Arrival, Inbox, Seen

ARRIVAL = Arrival("billing", "orders", "1", b"hash")


@pytest.fixture
async def database() -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(":memory:", clock=AsyncioClock())
    yield database
    await database.close()


@pytest.fixture
async def inbox(database: SqliteDatabase) -> Inbox:
    inbox = Inbox("sqlite")
    async with database.begin() as session:
        await inbox.create(session)
    return inbox


async def enter(database: SqliteDatabase, inbox: Inbox, arrival: Arrival) -> Seen | None:
    async with database.begin() as session:
        return await inbox.enter(session, arrival)


async def test_an_arrival_is_entered_once_and_then_known(
    database: SqliteDatabase, inbox: Inbox
) -> None:
    assert await inbox.find(database, ARRIVAL) is None
    assert await enter(database, inbox, ARRIVAL) is None
    assert await inbox.find(database, ARRIVAL) == Seen(b"hash", None)
    other_payload = Arrival("billing", "orders", "1", b"other")
    assert await enter(database, inbox, other_payload) == Seen(b"hash", None)


@pytest.mark.parametrize(
    "other",
    [
        Arrival("mail", "orders", "1", b"hash"),
        Arrival("billing", "shop", "1", b"hash"),
        Arrival("billing", "orders", "2", b"hash"),
    ],
)
async def test_consumer_source_and_id_together_make_the_identity(
    database: SqliteDatabase, inbox: Inbox, other: Arrival
) -> None:
    await enter(database, inbox, ARRIVAL)
    assert await enter(database, inbox, other) is None


async def test_what_is_rolled_back_was_never_entered(
    database: SqliteDatabase, inbox: Inbox
) -> None:
    with pytest.raises(ValueError, match="no"):
        async with database.begin() as session:
            await inbox.enter(session, ARRIVAL)
            raise ValueError("no")
    assert await inbox.find(database, ARRIVAL) is None


async def test_a_reply_is_kept_beside_the_row(database: SqliteDatabase, inbox: Inbox) -> None:
    async with database.begin() as session:
        await inbox.enter(session, ARRIVAL)
        await inbox.keep_reply(session, ARRIVAL, b"7")
    assert await inbox.find(database, ARRIVAL) == Seen(b"hash", b"7")


async def test_the_purge_takes_old_rows_of_one_consumer_in_batches_and_moves_the_watermark(
    database: SqliteDatabase, inbox: Inbox
) -> None:
    for number in range(5):
        await enter(database, inbox, Arrival("billing", "orders", str(number), b""))
    await enter(database, inbox, Arrival("mail", "orders", "0", b""))
    assert await inbox.watermark(database, "billing") == 0.0
    async with database.begin() as session:
        await session.execute(
            "update callcast_inbox set processed_at = processed_at - 1000 where message_id < '3'"
        )
        assert await inbox.purge(session, "billing", retention=500.0, limit=2) == 2
        assert await inbox.purge(session, "billing", retention=500.0, limit=2) == 1
        assert await inbox.purge(session, "billing", retention=500.0, limit=2) == 0
    rows = await database.read("select consumer, message_id from callcast_inbox order by 1, 2")
    assert rows == [("billing", "3"), ("billing", "4"), ("mail", "0")]

    watermark = await inbox.watermark(database, "billing")
    (row,) = await database.read("select strftime('%s', 'now') - ?", watermark)
    assert 498 <= float(row[0] or 0) <= 502
    assert await inbox.watermark(database, "mail") == 0.0


async def test_the_watermark_never_goes_back(database: SqliteDatabase, inbox: Inbox) -> None:
    async with database.begin() as session:
        await inbox.purge(session, "billing", retention=100.0, limit=1)
    high = await inbox.watermark(database, "billing")
    async with database.begin() as session:
        await inbox.purge(session, "billing", retention=500.0, limit=1)
    assert await inbox.watermark(database, "billing") == high
