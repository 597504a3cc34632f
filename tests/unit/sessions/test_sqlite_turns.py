"""SQLite as a `Database`: who gets its turn when, and what a cancellation leaves behind."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from database_kit import ids

from callcast.core.errors import Busy, NotSent
from callcast.runtime.clock import AsyncioClock
from callcast.sessions.sqlite import SqliteDatabase
from callcast.testing.clock import ManualClock

SLOW = """with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000000)
    select count(*) from n"""


async def test_a_read_does_not_wait_for_a_writer_and_does_not_see_what_is_not_committed(
    database: SqliteDatabase,
) -> None:
    async with database.begin() as session:
        await session.execute("insert into parcel values ('a')")
        assert await ids(database) == []
    assert await ids(database) == ["a"]


async def test_writers_of_one_process_come_in_the_order_in_which_they_asked(
    database: SqliteDatabase,
) -> None:
    order: list[int] = []

    async def write(number: int) -> None:
        async with database.begin() as session:
            order.append(number)
            await session.execute("insert into parcel values (?)", str(number))

    await asyncio.gather(*(write(number) for number in range(20)))

    assert order == list(range(20))
    assert len(await ids(database)) == 20


async def test_a_writer_that_gets_no_turn_is_busy(tmp_path: Path) -> None:
    clock = ManualClock()
    database = SqliteDatabase(str(tmp_path / "shop.db"), clock=clock)

    async def second() -> None:
        async with database.begin(wait=5.0):
            pytest.fail("it got in")

    async with database.begin():
        waiting = asyncio.ensure_future(second())
        await clock.advance(4.9)
        assert not waiting.done()
        await clock.advance(0.2)
        with pytest.raises(Busy, match="another transaction of this process"):
            await waiting
    await database.close()


async def test_a_writer_waits_for_another_process_and_goes_on_when_it_commits(
    database: SqliteDatabase,
) -> None:
    other = sqlite3.connect(database.path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    commit = threading.Timer(0.1, other.execute, ["commit"])
    commit.start()

    async with database.begin(wait=10.0) as session:
        await session.execute("insert into parcel values ('a')")

    commit.join()
    other.close()
    assert await ids(database) == ["a"]


async def test_a_writer_that_gets_no_lock_from_another_process_is_busy_and_gives_its_turn_back(
    database: SqliteDatabase,
) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(Busy, match="locked"):
        async with database.begin(wait=0.05):
            pytest.fail("it got in")
    other.execute("rollback")
    other.close()

    async with database.begin(wait=0.05) as session:
        await session.execute("insert into parcel values ('a')")
    assert await ids(database) == ["a"]


async def test_a_cancelled_statement_is_interrupted_and_ends_its_transaction(
    database: SqliteDatabase,
) -> None:
    async def slow() -> None:
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
            async with asyncio.timeout(0.05):
                await session.fetch(SLOW)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slow(), 30)

    assert await ids(database) == []
    async with database.begin(wait=1.0) as session:
        await session.execute("insert into parcel values ('b')")
    assert await ids(database) == ["b"]


async def test_a_user_who_catches_the_cancellation_of_a_statement_cannot_commit_the_rest(
    database: SqliteDatabase,
) -> None:
    with pytest.raises(NotSent, match="cancelled"):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await session.fetch(SLOW)
            with pytest.raises(NotSent):
                await session.execute("insert into parcel values ('b')")

    assert await ids(database) == []


async def test_a_cancelled_begin_leaves_no_lock_behind(database: SqliteDatabase) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("begin immediate")

    async def waits() -> None:
        async with database.begin(wait=30.0):
            pytest.fail("it got in")

    task = asyncio.ensure_future(waits())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other.execute("rollback")
    other.close()

    async with database.begin(wait=1.0) as session:
        await session.execute("insert into parcel values ('a')")
    assert await ids(database) == ["a"]


async def test_memory_is_private_and_reads_wait_for_the_writer() -> None:
    database = SqliteDatabase(":memory:", clock=AsyncioClock())
    other = SqliteDatabase(":memory:", clock=AsyncioClock())
    async with database.begin() as session:
        await session.execute("create table parcel (id)")
        reading = asyncio.ensure_future(database.read("select name from sqlite_master"))
        await asyncio.sleep(0)
        await session.execute("insert into parcel values ('a')")
    assert await reading == [("parcel",)]
    assert await ids(database) == ["a"]
    assert await other.read("select name from sqlite_master") == []
    await database.close()
    await other.close()
