"""`outbox.add` and `outbox.put` in transactions of SQLAlchemy and aiosqlite themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import aiosqlite
import pytest
import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from transaction_parts import MAIL, PACKED, PLACED, bench

from callcast import Bus, Service, outbox
from callcast.core.errors import Misuse

BASE = orm.declarative_base()


class Ledger(BASE):  # type: ignore[misc, valid-type]
    __tablename__ = "ledger"
    note: orm.Mapped[str] = orm.mapped_column(primary_key=True)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database with business rows and the outbox of the bus ``shop``."""
    path = str(tmp_path / "shop.db")
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    BASE.metadata.create_all(engine)
    with engine.begin() as connection:
        outbox.create(connection, "shop")
    engine.dispose()
    return path


@pytest.fixture
def engine(path: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(path: str) -> AsyncGenerator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=sa.NullPool)
    yield engine
    await engine.dispose()


async def waiting(path: str) -> list[tuple[str, str]]:
    """Ids and topics that will leave, in their order."""
    async with bench(path) as b:
        entries = await b.units.outbox.due(b.database, 10, retried=10)
        return [(entry.message.id, entry.message.topic) for entry in entries]


def notes(path: str) -> list[str]:
    connection = sqlite3.connect(path)
    rows = [note for (note,) in connection.execute("select note from ledger order by note")]
    connection.close()
    return rows


async def test_a_session_of_sqlalchemy_sends_with_its_commit_and_never_without_it(
    path: str, engine: sa.Engine
) -> None:
    with orm.Session(engine) as session:
        session.add(Ledger(note="lost"))
        session.flush()
        outbox.add(session, PACKED, "lost")
        session.rollback()
        session.add(Ledger(note="kept"))
        first = outbox.add(session, PLACED, "a:1")
        second = outbox.add(session, MAIL, "hello", id="mine")
        session.flush()
        assert notes(path) == []
        session.commit()
    assert notes(path) == ["kept"]
    assert await waiting(path) == [(first, "orders.placed"), (second, "mail.send")]
    assert second == "mine"


async def test_a_session_that_fails_at_its_commit_sends_nothing(
    path: str, engine: sa.Engine
) -> None:
    with orm.Session(engine) as session:
        session.add(Ledger(note="once"))
        session.commit()
    with orm.Session(engine) as session:
        session.add(Ledger(note="once"))
        outbox.add(session, PACKED, "lost")
        with pytest.raises(IntegrityError):
            session.commit()
    assert await waiting(path) == []


def test_a_savepoint_that_is_rolled_back_takes_its_messages_with_it(
    path: str, engine: sa.Engine
) -> None:
    _begin_for_real(engine)
    with orm.Session(engine) as session:
        kept = outbox.add(session, PLACED, "a:1")
        nested = session.begin_nested()
        outbox.add(session, PLACED, "a:2")
        nested.rollback()
        after = outbox.add(session, PLACED, "a:3")
        session.commit()
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("select message_id, key_seq from callcast_outbox").all()
    assert rows == [(kept, 1), (after, 2)]  # without a gap, which a reader would take for a loss


async def test_a_connection_of_sqlalchemy_sends_with_its_commit(
    path: str, engine: sa.Engine
) -> None:
    with engine.connect() as connection:
        connection.execute(sa.insert(Ledger).values(note="lost"))
        outbox.add(connection, PACKED, "lost")
        connection.rollback()
    with engine.begin() as connection:
        connection.execute(sa.insert(Ledger).values(note="kept"))
        added = outbox.add(connection, PACKED, "kept")
    assert notes(path) == ["kept"]
    assert await waiting(path) == [(added, "orders.packed")]


async def test_a_scoped_session_is_a_session_too(path: str, engine: sa.Engine) -> None:
    scoped = orm.scoped_session(orm.sessionmaker(engine))
    added = outbox.add(scoped, PACKED, "x")
    scoped.commit()
    scoped.remove()
    assert await waiting(path) == [(added, "orders.packed")]


async def test_an_asynchronous_session_sends_with_its_commit_and_never_without_it(
    path: str, async_engine: AsyncEngine
) -> None:
    async with AsyncSession(async_engine) as session:
        session.add(Ledger(note="lost"))
        await session.flush()
        await outbox.put(session, PACKED, "lost")
        await session.rollback()
        session.add(Ledger(note="kept"))
        first = await outbox.put(session, PLACED, "a:1")
        second = await outbox.put(session, PLACED, "a:2")
        await session.flush()
        await session.commit()
    assert notes(path) == ["kept"]
    assert (await waiting(path))[0] == (first, "orders.placed")
    assert first != second


async def test_an_asynchronous_connection_sends_with_its_commit(
    path: str, async_engine: AsyncEngine
) -> None:
    async with async_engine.connect() as connection:
        await connection.execute(sa.insert(Ledger).values(note="lost"))
        await outbox.put(connection, PACKED, "lost")
        await connection.rollback()
    async with async_engine.begin() as connection:
        await connection.execute(sa.insert(Ledger).values(note="kept"))
        added = await outbox.put(connection, PACKED, "kept")
    assert notes(path) == ["kept"]
    assert await waiting(path) == [(added, "orders.packed")]


async def test_an_asynchronous_scoped_session_is_a_session_too(
    path: str, async_engine: AsyncEngine
) -> None:
    scoped = async_scoped_session(async_sessionmaker(async_engine), scopefunc=lambda: 1)
    added = await outbox.put(scoped, PACKED, "x")
    await scoped.commit()
    await scoped.remove()
    assert await waiting(path) == [(added, "orders.packed")]


async def test_a_connection_of_aiosqlite_sends_with_its_commit_and_never_without_it(
    path: str,
) -> None:
    async with aiosqlite.connect(path) as connection:
        await connection.execute("insert into ledger values ('lost')")
        await outbox.put(connection, PACKED, "lost")
        await connection.rollback()
        await connection.execute("insert into ledger values ('kept')")
        added = await outbox.put(connection, PLACED, "a:1")
        await connection.commit()
    assert notes(path) == ["kept"]
    assert await waiting(path) == [(added, "orders.placed")]


async def test_a_connection_of_aiosqlite_that_commits_by_itself_needs_a_transaction_first(
    path: str,
) -> None:
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        with pytest.raises(Misuse, match="begin a transaction first"):
            await outbox.put(connection, PACKED, "x")
        await connection.execute("begin")
        added = await outbox.put(connection, PACKED, "x")
        await connection.execute("commit")
    assert await waiting(path) == [(added, "orders.packed")]


async def test_what_commits_by_itself_in_sqlalchemy_is_refused(
    path: str, engine: sa.Engine
) -> None:
    """Else the message would leave though the rows are rolled back."""
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    refused = pytest.raises(Misuse, match="begin a transaction first")
    with refused, alone.connect() as connection:
        outbox.add(connection, PACKED, "x")
    with refused, orm.Session(alone) as session:
        outbox.add(session, PACKED, "x", bus="shop")
    waited = create_async_engine(f"sqlite+aiosqlite:///{path}", isolation_level="AUTOCOMMIT")
    with refused:
        async with waited.connect() as asynchronous:
            await outbox.put(asynchronous, PACKED, "x")
    with refused:
        async with AsyncSession(waited) as asynchronous:
            await outbox.put(asynchronous, PACKED, "x", bus="shop")
    await waited.dispose()
    assert await waiting(path) == []


async def test_the_wrong_one_of_the_two_says_which_is_right(
    path: str, engine: sa.Engine, async_engine: AsyncEngine
) -> None:
    async with (
        AsyncSession(async_engine) as session,
        async_engine.connect() as connection,
        aiosqlite.connect(path) as lite,
    ):
        for asynchronous in (session, connection, lite):
            with pytest.raises(Misuse, match=r"is asynchronous: use 'await outbox\.put"):
                outbox.add(asynchronous, PACKED, "x")
    with orm.Session(engine) as session_, engine.connect() as connection_:
        for blocking in (session_, connection_):
            with pytest.raises(Misuse, match=r"is blocking: use 'outbox\.add"):
                await outbox.put(blocking, PACKED, "x")


async def test_what_was_added_by_sqlalchemy_is_relayed_and_handled(
    path: str, engine: sa.Engine
) -> None:
    handled: list[str] = []
    shop, warehouse = Service("shop", database=f"sqlite:///{path}"), Service("warehouse")

    @warehouse.on(PLACED)
    async def pack(value: str) -> None:
        handled.append(value)

    async with Bus("memory://", name="shop", services=[shop, warehouse]) as bus:
        for number in range(3):
            with orm.Session(engine) as session, session.begin():
                session.add(Ledger(note=str(number)))
                outbox.add(session, PLACED, f"a:{number}")
        await bus.idle()
    assert handled == ["a:0", "a:1", "a:2"]


def _begin_for_real(engine: sa.Engine) -> None:
    """As SQLAlchemy's pages on pysqlite say: its driver begins late, and savepoints need it early."""

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("begin")
