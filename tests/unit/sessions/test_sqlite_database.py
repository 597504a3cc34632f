"""SQLite as a `Database`: sessions, files, the end, and what becomes of a COMMIT."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest
from database_kit import ids

from callcast.core.errors import CommitUnknown, Misuse, NotSent, Unavailable
from callcast.ports.session import Database, Session, in_one_go
from callcast.runtime.clock import AsyncioClock
from callcast.sessions.sqlite import SqliteDatabase
from callcast.testing.faults import Faults


async def test_a_clean_exit_commits_and_says_how_many_rows_changed(
    database: SqliteDatabase,
) -> None:
    async with database.begin() as session:
        assert await session.execute("insert into parcel values (?), (?)", "a", "b") == 2
        assert await session.fetch("select id from parcel order by id") == [("a",), ("b",)]
        assert await session.execute("select 1") == 0

    assert await ids(database) == ["a", "b"]
    assert database.dialect == "sqlite"
    assert isinstance(database, Database)


async def test_an_error_rolls_back_and_passes(database: SqliteDatabase) -> None:
    with pytest.raises(ValueError, match="no"):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
            raise ValueError("no")

    assert await ids(database) == []


async def test_an_error_of_the_statement_is_the_drivers_and_leaves_the_transaction_open(
    database: SqliteDatabase,
) -> None:
    async with database.begin() as session:
        await session.execute("insert into parcel values ('a')")
        with pytest.raises(sqlite3.IntegrityError):
            await session.execute("insert into parcel values ('a')")
        with pytest.raises(sqlite3.OperationalError):
            await session.fetch("select nonsense")
        await session.execute("insert into parcel values ('b')")

    assert await ids(database) == ["a", "b"]


async def test_a_reader_cannot_write(database: SqliteDatabase) -> None:
    with pytest.raises(Unavailable, match="readonly"):
        await database.read("insert into parcel values ('a')")


async def test_a_transaction_that_the_database_rolled_back_takes_no_more_and_does_not_commit(
    database: SqliteDatabase,
) -> None:
    with pytest.raises(NotSent, match="rolled the transaction back"):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
            with pytest.raises(sqlite3.IntegrityError):
                await session.execute("insert or rollback into parcel values ('a')")
            with pytest.raises(NotSent):
                await session.fetch("select 1")

    assert await ids(database) == []


@pytest.mark.parametrize("sql", ["commit", "BEGIN", " commit;", "end"])
async def test_a_user_cannot_end_the_transaction_himself(
    database: SqliteDatabase, sql: str
) -> None:
    async with database.begin() as session:
        with pytest.raises(Misuse, match="begins and ends"):
            await session.execute(sql)


async def test_a_session_is_of_no_use_after_its_block(database: SqliteDatabase) -> None:
    async with database.begin() as session:
        assert isinstance(session.connection(), sqlite3.Connection)
    with pytest.raises(Misuse, match="has ended"):
        await session.execute("select 1")
    with pytest.raises(Misuse, match="has ended"):
        session.connection()


async def test_statements_on_the_drivers_own_connection_are_part_of_the_transaction(
    database: SqliteDatabase,
) -> None:
    with pytest.raises(ValueError, match="no"):
        async with database.begin() as session:
            session.connection().execute("insert into parcel values ('a')")
            raise ValueError("no")
    assert await ids(database) == []


async def test_a_lost_reply_to_commit_is_unknown_not_a_failure(tmp_path: Path) -> None:
    faults = Faults({"session.committed": "raise"})
    database = SqliteDatabase(str(tmp_path / "a.db"), clock=AsyncioClock(), failpoints=faults)
    with pytest.raises(CommitUnknown):
        async with database.begin() as session:
            await session.execute("create table parcel (id)")
    assert await database.read("select name from sqlite_master") == [("parcel",)]
    await database.close()


async def test_a_full_disk_is_unavailable_and_nothing_is_written(database: SqliteDatabase) -> None:
    connection = database._writer.seat.connection
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages + 3}")
    with pytest.raises(Unavailable, match="full"):
        async with database.begin() as session:
            await session.execute("insert into parcel values (?)", "x" * 100_000)
    assert await ids(database) == []

    connection.execute("pragma max_page_count = 100000")
    async with database.begin() as session:
        await session.execute("insert into parcel values (?)", "x")
    assert await ids(database) == ["x"]


async def test_a_database_that_is_away_says_so_and_is_used_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    database = SqliteDatabase(str(tmp_path / "data" / "shop.db"), clock=AsyncioClock())
    with pytest.raises(Unavailable, match="No such file"):
        async with database.begin():
            pytest.fail("it is away")
    with pytest.raises(Unavailable):
        await database.read("select 1")

    (tmp_path / "data").mkdir()
    async with database.begin() as session:
        assert await session.fetch("select 1") == [(1,)]
    assert await database.read("select 1") == [(1,)]
    await database.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    database = SqliteDatabase(str(path), clock=AsyncioClock())
    with pytest.raises(Unavailable, match="not a database"):
        await database.read("select 1")
    await database.close()


async def test_a_new_file_is_for_its_owner_only(database: SqliteDatabase) -> None:
    async with database.begin() as session:
        await session.execute("insert into parcel values ('a')")
        for name in (database.path, f"{database.path}-wal", f"{database.path}-shm"):
            assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600


async def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
    database = SqliteDatabase(str(tmp_path / "link.db"), clock=AsyncioClock())
    with pytest.raises(Misuse, match="symbolic link"):
        await database.read("select 1")
    await database.close()


async def test_a_path_through_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = SqliteDatabase(str(tmp_path / "file" / "shop.db"), clock=AsyncioClock())
    with pytest.raises(Unavailable):
        await database.read("select 1")
    await database.close()


async def test_a_commit_that_need_not_be_durable_is_not_synced_by_itself(
    database: SqliteDatabase,
) -> None:
    async with database.begin(is_durable=False) as session:
        assert await session.fetch("pragma synchronous") == [(1,)]
        await session.execute("insert into parcel values ('a')")
    assert await ids(database) == ["a"]
    async with database.begin() as session:
        assert await session.fetch("pragma synchronous") == [(2,)]


async def test_steps_in_one_go_are_part_of_the_transaction(database: SqliteDatabase) -> None:
    async def steps(session: Session) -> int:
        await session.execute("insert into parcel values ('a')")
        assert session.connection() is not None
        return len(await session.fetch("select id from parcel"))

    async with database.begin() as session:
        assert await in_one_go(session, steps) == 1
    with pytest.raises(sqlite3.IntegrityError):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('b')")
            await in_one_go(session, steps)
    assert await ids(database) == ["a"]


async def test_a_session_that_cannot_gather_runs_the_steps_one_by_one(
    database: SqliteDatabase,
) -> None:
    class Plain:
        def __init__(self, session: Session) -> None:
            self.execute, self.fetch = session.execute, session.fetch
            self.connection = session.connection

    async with database.begin() as session:
        found = await in_one_go(Plain(session), lambda plain: plain.fetch("select 1"))  # type: ignore[arg-type,return-value]
    assert found == [(1,)]


async def test_steps_that_wait_for_something_else_are_misuse(database: SqliteDatabase) -> None:
    async def steps(_session: Session) -> None:
        await asyncio.sleep(0)

    async with database.begin() as session:
        with pytest.raises(Misuse, match="nothing but their session"):
            await in_one_go(session, steps)


async def test_every_commit_is_synced(database: SqliteDatabase) -> None:
    async with database.begin() as session:
        assert await session.fetch("pragma synchronous") == [(2,)]
        assert await session.fetch("pragma journal_mode") == [("wal",)]


async def test_close_is_idempotent_and_what_comes_later_was_not_sent(
    database: SqliteDatabase,
) -> None:
    await database.close()
    await database.close()
    with pytest.raises(NotSent, match="closed"):
        await database.read("select 1")
    with pytest.raises(NotSent, match="closed"):
        database.begin()


async def test_closing_rolls_an_open_transaction_back_and_its_block_ends_with_an_error(
    database: SqliteDatabase,
) -> None:
    with pytest.raises(NotSent, match="closed"):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
            await database.close()
    again = SqliteDatabase(database.path, clock=AsyncioClock())
    assert await ids(again) == []
    await again.close()


async def test_an_error_inside_a_closed_database_is_not_hidden(database: SqliteDatabase) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with database.begin():
            await database.close()
            raise ValueError("mine")


async def test_a_database_is_not_used_across_a_fork(database: SqliteDatabase) -> None:
    database._process += 1
    with pytest.raises(Misuse, match="fork"):
        await database.read("select 1")
    database._process -= 1


async def test_a_rollback_that_fails_closes_the_connection(database: SqliteDatabase) -> None:
    class Stuck(sqlite3.Connection):
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
            if sql == "rollback":
                raise sqlite3.OperationalError("no")
            return super().execute(sql, *args)  # type: ignore[arg-type]

    seat = database._writer.seat
    seat.connection.close()
    seat._connection = sqlite3.connect(
        database.path, factory=Stuck, isolation_level=None, check_same_thread=False
    )
    with pytest.raises(ValueError, match="mine"):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
            raise ValueError("mine")

    assert not seat.is_in_transaction
    with pytest.raises(NotSent, match="no connection"):
        _ = seat.connection
    async with database.begin(wait=0.5) as session:
        await session.execute("insert into parcel values ('b')")
    assert await ids(database) == ["b"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [(sqlite3.SQLITE_IOERR, CommitUnknown), (sqlite3.SQLITE_FULL, Unavailable)],
)
async def test_a_commit_that_met_an_input_output_error_is_unknown(
    database: SqliteDatabase, code: int, expected: type[Exception]
) -> None:
    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
            if sql == "commit":
                error = sqlite3.OperationalError("disk")
                error.sqlite_errorcode = code
                error.sqlite_errorname = "SQLITE_TEST"
                raise error
            return super().execute(sql, *args)  # type: ignore[arg-type]

    seat = database._writer.seat
    seat.connection.close()
    seat._connection = sqlite3.connect(
        database.path, factory=Failing, isolation_level=None, check_same_thread=False
    )
    with pytest.raises(expected):
        async with database.begin() as session:
            await session.execute("insert into parcel values ('a')")
    assert not seat.is_in_transaction
    assert await ids(database) == []
