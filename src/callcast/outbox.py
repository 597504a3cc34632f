"""Messages that leave after the commit of a transaction that is the program's own.

    outbox.add(session, PLACED, order)              # sqlite3, or SQLAlchemy's Session or Connection
    await outbox.put(session, PLACED, order)        # aiosqlite, or SQLAlchemy's asynchronous ones

Nothing is committed here: the message leaves when the program commits, and never when it rolls
back. The relay of the bus that the row names sends it; that is a service with this database.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

from typing_extensions import Unpack

from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.work import Kind, Work
from callcast.ports.session import Row, Session
from callcast.runtime import registry
from callcast.runtime.envelope import Envelopes, Sending
from callcast.runtime.ports import Ports
from callcast.runtime.sending import traced
from callcast.runtime.system import system_ports
from callcast.runtime.transaction import SERVICE
from callcast.stores.outbox import Outbox

__all__ = ["add", "create", "put"]

R = TypeVar("R")
T = TypeVar("T")

BUSES_MAX = 16
_BEGIN = "select 1"
"""SQLAlchemy begins at the first statement, where a program has it say ``begin`` by itself."""


def add(
    session: object,
    contract: Event[T] | Operation[T, Any],
    value: T,
    *,
    id: str = "",
    bus: str = "",
    **sending: Unpack[Sending],
) -> str:
    """Publish an event, or cast an operation, with the commit of a blocking `session`; its id.

    `session` is an `sqlite3.Connection` or SQLAlchemy's ``Session`` or ``Connection``, with a
    transaction open or beginning by itself. `bus` names whose relay sends it; it may be left out
    where exactly one bus relays from this database. Raises `Misuse` when that is not so, and what
    the driver raises.
    """
    return _drive(_add(_blocking(session), contract, value, id, bus, sending))


async def put(
    session: object,
    contract: Event[T] | Operation[T, Any],
    value: T,
    *,
    id: str = "",
    bus: str = "",
    **sending: Unpack[Sending],
) -> str:
    """The same in an asynchronous transaction; see `add`.

    `session` is an ``aiosqlite.Connection``, SQLAlchemy's ``AsyncSession`` or ``AsyncConnection``.
    """
    return await _add(await _asynchronous(session), contract, value, id, bus, sending)


def create(session: object, bus: str) -> None:
    """Make the tables of the outbox, and name the bus whose relay will send what is added.

    For migrations that run before a service of that bus has used this database; idempotent.
    """
    found = _blocking(session)
    _drive(Outbox(found.dialect, bus).create(found))


class _Found(Session, Protocol):
    """A session of the program's own, and what its SQL is called."""

    dialect: str


async def _add(  # noqa: PLR0917 - the body of `add` and `put`
    session: _Found,
    contract: Event[Any] | Operation[Any, Any],
    value: object,
    id_: str,
    bus: str,
    sending: Sending,
) -> str:
    outbox = Outbox(session.dialect, bus or await _only_bus(session))
    ports, envelopes = _sender(outbox.bus)
    if isinstance(contract, Event):
        message = envelopes.event(contract, value, id_, sending=sending)
    else:
        own = {SERVICE: contract.service}
        message = envelopes.command(contract, value, id_, sending=sending, own=own)
    await outbox.add(session, [_with_trace(message, ports)])
    return message.id


async def _only_bus(session: _Found) -> str:
    try:
        buses = await Outbox(session.dialect, "").buses(session)
    except Exception as error:
        raise Misuse(
            "this database has no outbox yet: start a service that uses it, or call"
            f" outbox.create(session, bus) in a migration ({error})"
        ) from error
    if len(buses) != 1:
        raise Misuse(
            f"outbox.add(..., bus=): which bus? From this database relay: {', '.join(buses)}"
        )
    return buses[0]


@lru_cache(BUSES_MAX)
def _sender(bus: str) -> tuple[Ports, Envelopes]:
    ports = system_ports("outbox://")
    return ports, Envelopes(registry.json_codec(), bus, ports)


def _with_trace(message: Message, ports: Ports) -> Message:
    work = Work(Kind.PUBLISH, message.type, message.id, peer=message.topic, message=message)
    carrier = ports.observer.carrier(work)
    return traced(message, carrier) if carrier else message


def _drive(steps: Coroutine[object, None, R]) -> R:
    """Run steps that never wait: those of a blocking session."""
    try:
        steps.send(None)
    except StopIteration as end:
        return cast("R", end.value)
    raise AssertionError("the steps of a blocking session wait for nothing")


# The sessions of the program, by what their types can do: no driver is imported for it. An instance
# is not asked (`isinstance` with a protocol, `hasattr`): some of SQLAlchemy's properties raise.


class _Cursor(Protocol):
    @property
    def rowcount(self) -> int: ...

    def fetchall(self) -> Sequence[Any]: ...


class _Blocking:
    """A session whose steps never wait."""

    def __init__(self, dialect: str, run: Callable[[str, tuple[object, ...]], _Cursor]) -> None:
        self.dialect = dialect
        self._run = run

    async def execute(self, sql: str, *args: object) -> int:
        return self._run(sql, args).rowcount

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        return [tuple(row) for row in self._run(sql, args).fetchall()]

    def connection(self) -> object:
        return self._run


class _Waiting:
    """A session whose steps are awaited; the rows of SQLAlchemy's come without waiting again."""

    def __init__(
        self, dialect: str, run: Callable[[str, tuple[object, ...]], Awaitable[Any]]
    ) -> None:
        self.dialect = dialect
        self._run = run

    async def execute(self, sql: str, *args: object) -> int:
        cursor = await self._run(sql, args)
        return cast("int", cursor.rowcount)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        rows: Any = (await self._run(sql, args)).fetchall()
        if inspect.isawaitable(rows):
            rows = await rows
        return [tuple(row) for row in rows]

    def connection(self) -> object:
        return self._run


def _blocking(session: object) -> _Found:
    kind = type(session)
    if isinstance(session, sqlite3.Connection):
        _refuse_autocommit(session)
        return _Blocking("sqlite", session.execute)
    if _is_waiting(kind):
        raise Misuse(f"{kind.__qualname__} is asynchronous: use 'await outbox.put(...)' instead")
    if not _is_blocking(kind):
        raise _unknown(kind)
    known: Any = session
    connection = known.connection() if _is_orm_session(kind) else known
    dialect: str = connection.dialect.name
    if dialect == "sqlite":
        connection.exec_driver_sql(_BEGIN)
        _refuse_autocommit(connection.connection.driver_connection)
    return _Blocking(dialect, connection.exec_driver_sql)


async def _asynchronous(session: object) -> _Found:
    kind = type(session)
    if isinstance(session, sqlite3.Connection) or _is_blocking(kind):
        raise Misuse(f"{kind.__qualname__} is blocking: use 'outbox.add(...)' instead")
    if not _is_waiting(kind):
        raise _unknown(kind)
    known: Any = session
    if _is_aiosqlite(kind):
        _refuse_autocommit(known)
        return _Waiting("sqlite", known.execute)
    connection = await known.connection() if _is_orm_session(kind) else known
    dialect: str = connection.dialect.name
    if dialect == "sqlite":
        await connection.exec_driver_sql(_BEGIN)
        _refuse_autocommit((await connection.get_raw_connection()).driver_connection)
    return _Waiting(dialect, connection.exec_driver_sql)


def _is_blocking(kind: type) -> bool:
    """Whether it is SQLAlchemy's ``Session``, ``scoped_session`` or ``Connection``."""
    is_session = _is_orm_session(kind) and not _awaits(kind, "connection")
    return is_session or _calls(kind, "exec_driver_sql")


def _is_waiting(kind: type) -> bool:
    """Whether it is aiosqlite's connection, or what SQLAlchemy has of the kind."""
    is_session = _is_orm_session(kind) and _awaits(kind, "connection")
    return is_session or _awaits(kind, "exec_driver_sql") or _is_aiosqlite(kind)


def _calls(kind: type, method: str) -> bool:
    return callable(getattr(kind, method, None)) and not _awaits(kind, method)


def _awaits(kind: type, method: str) -> bool:
    return inspect.iscoroutinefunction(getattr(kind, method, None))


def _is_orm_session(kind: type) -> bool:
    return hasattr(kind, "connection") and hasattr(kind, "get_bind")


def _is_aiosqlite(kind: type) -> bool:
    has_all = all(hasattr(kind, name) for name in ("execute", "in_transaction", "isolation_level"))
    return has_all and not issubclass(kind, sqlite3.Connection)


def _refuse_autocommit(connection: Any) -> None:
    commits = connection.isolation_level is None or getattr(connection, "autocommit", False) is True
    if commits and not connection.in_transaction:
        raise Misuse(
            "this connection commits every statement by itself: begin a transaction first, else"
            " the message could leave without your rows"
        )


def _unknown(kind: type) -> Misuse:
    return Misuse(
        f"{kind.__module__}.{kind.__qualname__} is no session that the outbox knows: sqlite3 and"
        " SQLAlchemy for outbox.add, aiosqlite and SQLAlchemy's asynchronous ones for outbox.put"
    )
