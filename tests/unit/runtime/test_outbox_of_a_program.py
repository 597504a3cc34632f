"""`callcast.outbox`: messages added in a transaction of the program's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from transaction_parts import MAIL, PACKED, PLACED, bench

from callcast import outbox
from callcast.core.errors import Misuse
from callcast.stores.outbox import KEY_SEQ


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "shop.db")


@pytest.fixture
def connection(path: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    connection.execute("create table ledger (note)")
    outbox.create(connection, "shop")
    connection.commit()
    yield connection
    connection.close()


class Elsewhere:
    """What SQLAlchemy's Connection shows of a database that has no outbox."""

    dialect = SimpleNamespace(name="oracle")

    def exec_driver_sql(self, statement: str, parameters: tuple[object, ...]) -> object:
        raise AssertionError(f"{statement} was run")


class CommitsByItself(sqlite3.Connection):
    """As ``sqlite3.connect(path, autocommit=True)`` makes it since Python 3.12."""

    autocommit = True


async def waiting(path: str) -> list[tuple[str, str]]:
    """Ids and topics that will leave."""
    async with bench(path) as b:
        entries = await b.units.outbox.due(b.database, 10, retried=10)
        return [(entry.message.id, entry.message.topic) for entry in entries]


async def test_what_is_added_leaves_with_the_commit_and_never_without_it(
    path: str, connection: sqlite3.Connection
) -> None:
    connection.execute("insert into ledger values ('x')")
    outbox.add(connection, PACKED, "lost")
    connection.rollback()
    connection.execute("insert into ledger values ('y')")
    kept = outbox.add(connection, PACKED, "kept")
    other = sqlite3.connect(path)
    assert other.execute("select count(*) from callcast_outbox").fetchone() == (0,)
    other.close()
    connection.commit()
    assert await waiting(path) == [(kept, "orders.packed")]
    assert connection.execute("select note from ledger").fetchall() == [("y",)]


async def test_keys_casts_ids_and_times_are_those_of_the_bus(
    path: str, connection: sqlite3.Connection
) -> None:
    outbox.add(connection, PLACED, "a:1", id="first", expires=60.0)
    outbox.add(connection, PLACED, "a:2")
    outbox.add(connection, MAIL, "hello")
    connection.commit()
    async with bench(path) as b:
        placed, mail = [e.message for e in await b.units.outbox.due(b.database, 10, retried=10)]
        assert (placed.id, placed.key, placed.source) == ("first", "a", "shop")
        assert placed.headers == {KEY_SEQ: "1"}
        assert placed.expires is not None
        assert (mail.topic, mail.headers) == ("mail.send", {"callcast-service": "mail"})


async def test_the_bus_may_be_left_out_only_where_one_relays(
    path: str, connection: sqlite3.Connection
) -> None:
    outbox.create(connection, "billing")
    with pytest.raises(Misuse, match=r"which bus.*billing, shop"):
        outbox.add(connection, PACKED, "x")
    added = outbox.add(connection, PACKED, "x", bus="shop")
    outbox.add(connection, PACKED, "y", bus="billing")
    connection.commit()
    assert await waiting(path) == [(added, "orders.packed")]


def test_a_database_without_an_outbox_says_how_it_gets_one(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "empty.db")
    with pytest.raises(Misuse, match=r"outbox\.create"):
        outbox.add(connection, PACKED, "x")
    connection.close()


def test_a_connection_that_commits_by_itself_needs_a_transaction_first(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(Misuse, match="begin a transaction first"):
        outbox.create(connection, "shop")
    connection.execute("begin")
    outbox.create(connection, "shop")
    outbox.add(connection, PACKED, "x")
    connection.execute("commit")
    assert connection.execute("select count(*) from callcast_outbox").fetchone() == (1,)
    connection.close()


def test_a_connection_that_is_told_to_commit_by_itself_is_refused(path: str) -> None:
    connection = sqlite3.connect(path, factory=CommitsByItself)
    with pytest.raises(Misuse, match="begin a transaction first"):
        outbox.create(connection, "shop")
    connection.close()


async def test_what_is_no_session_is_named(connection: sqlite3.Connection) -> None:
    with pytest.raises(Misuse, match=r"builtins\.dict is no session"):
        outbox.add({}, PACKED, "x")
    with pytest.raises(Misuse, match=r"builtins\.dict is no session"):
        await outbox.put({}, PACKED, "x")
    with pytest.raises(Misuse, match=r"Connection is blocking: use 'outbox\.add"):
        await outbox.put(connection, PACKED, "x")


def test_a_dialect_without_sql_is_refused() -> None:
    with pytest.raises(Misuse, match="no SQL for a 'oracle'"):
        outbox.add(Elsewhere(), PACKED, "x", bus="shop")


def test_the_drivers_own_errors_pass(connection: sqlite3.Connection) -> None:
    connection.execute("drop table callcast_outbox")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        outbox.add(connection, PACKED, "x")
