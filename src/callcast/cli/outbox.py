"""``callcast outbox``: what waits in services' outboxes, and the way out for what is parked.

A row that no broker will take as it is (too large, say) is parked and holds its key: order goes
first. ``flush`` tries it again once the reason is mended, ``skip`` gives it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

import click

from callcast.cli.failure import Failure
from callcast.cli.opening import broker_option, chosen, file_of
from callcast.cli.output import emit, emit_one, note, output_option
from callcast.ports.session import Database
from callcast.runtime import registry
from callcast.runtime.system import system_ports
from callcast.stores.outbox import Outbox, Parked

F = TypeVar("F", bound=Callable[..., object])
Rows: TypeAlias = list[dict[str, object]]

WAITING = ("database", "bus", "ready", "delayed", "parked", "oldest")
PARKED = ("id", "topic", "key", "behind", "attempts", "age", "error")
LS = "callcast outbox ls"


def database_option(function: F) -> F:
    """``--database URL``, and ``--broker`` beside which the files are without it."""
    return broker_option(
        click.option(
            "--database",
            "databases",
            multiple=True,
            metavar="URL",
            help="A service's database, such as sqlite:///orders.db. Defaults to those that"
            " services have beside an embedded broker's file.",
        )(function)
    )


@click.group()
def outbox() -> None:
    """Look at outboxes, and let go on what is parked there."""


@outbox.command(
    epilog="""\b
Examples:
  callcast outbox status
  callcast outbox status --database sqlite:///orders.db -o json
"""
)
@database_option
@output_option
def status(*, url: str | None, databases: Sequence[str], form: str) -> None:
    """Say what waits in outboxes, per database and bus; what is sent is not counted.

    READY leaves now, DELAYED is tried again later or stands behind such a row, PARKED waits for
    'callcast outbox flush' or 'skip'. OLDEST is an age in seconds.
    """

    async def look(name: str, database: Database) -> Rows:
        return [
            {
                "database": name,
                "bus": pending.bus,
                "ready": pending.ready,
                "delayed": pending.delayed,
                "parked": pending.parked,
                "oldest": pending.oldest,
            }
            for pending in await _outbox().pending(database)
        ]

    emit(_each(url, databases, look), form, WAITING)


@outbox.command(
    epilog="""\b
Examples:
  callcast outbox ls
  callcast outbox ls -o json
"""
)
@database_option
@output_option
def ls(*, url: str | None, databases: Sequence[str], form: str) -> None:
    """List parked rows, oldest first: what no broker takes, why, and how many wait behind."""

    async def look(name: str, database: Database) -> Rows:
        return [_record(name, row) for row in await _outbox().parked(database)]

    emit(_each(url, databases, look), form, PARKED)


@outbox.command(
    epilog="""\b
Examples:
  callcast outbox flush
  callcast outbox flush --database sqlite:///orders.db
"""
)
@database_option
@output_option
def flush(*, url: str | None, databases: Sequence[str], form: str) -> None:
    """Try all parked rows again, under their ids, before what waits behind them.

    For when the reason is mended: a limit raised, a permission given. What is refused again is
    parked again.
    """

    async def again(name: str, database: Database) -> Rows:
        rows = await _outbox().parked(database)
        async with database.begin() as session:
            for bus in {row.bus for row in rows}:
                await _outbox(bus).unpark(session)
        return [_record(name, row) for row in rows]

    flushed = _each(url, databases, again)
    emit(flushed, form, PARKED)
    note(f"{len(flushed)} rows are tried again; what is parked once more: {LS}")


@outbox.command(
    epilog="""\b
Examples:
  callcast outbox skip 0198f1c2 -o json > given-up.json
"""
)
@click.argument("message_id", metavar="ID")
@database_option
@output_option
def skip(*, message_id: str, url: str | None, databases: Sequence[str], form: str) -> None:
    """Give up a parked row for good, and let its key go on without it.

    The message is gone then, and nobody will have heard of it: it is printed, with its body, so
    that it can be kept.
    """

    async def give_up(name: str, database: Database) -> Rows:
        rows = [row for row in await _outbox().parked(database) if row.id == message_id]
        for row in rows:
            async with database.begin() as session:
                await _outbox(row.bus).skip(session, message_id)
        return [
            {**_record(name, row), "body": row.message.body.decode("utf-8", "backslashreplace")}
            for row in rows
        ]

    skipped = _each(url, databases, give_up)
    if not skipped:
        raise Failure(f"no row of message {message_id} is parked", fix=LS)
    for record in skipped:
        emit_one(record, form)
    note(f"{message_id} is given up; {skipped[0]['behind']} rows of its key go on")


def _record(database: str, row: Parked) -> dict[str, object]:
    return {
        "id": row.id,
        "database": database,
        "bus": row.bus,
        "topic": row.topic,
        "key": row.key,
        "behind": row.behind,
        "attempts": row.attempts,
        "age": row.age,
        "error": row.error,
    }


def _outbox(bus: str = "") -> Outbox:
    return Outbox("sqlite", bus)


def _each(
    url: str | None,
    databases: Sequence[str],
    work: Callable[[str, Database], Awaitable[Rows]],
) -> Rows:
    """Do this with each database that has an outbox; all results."""

    async def run() -> Rows:
        found: Rows = []
        for path in _paths(url, databases):
            async with _opened(path) as database:
                if await _outbox().exists(database):
                    found += await work(path.name, database)
        return found

    return asyncio.run(run())


@asynccontextmanager
async def _opened(path: Path) -> AsyncGenerator[Database]:
    database = registry.sqlite_database(str(path), system_ports("sqlite:"))
    try:
        yield database
    finally:
        await database.close()


def _paths(url: str | None, databases: Sequence[str]) -> Sequence[Path]:
    """The files that were named, or those beside the broker's."""
    if databases:
        paths = [Path(registry.sqlite_path(each)) for each in databases]
        missing = [str(path) for path in paths if not path.exists()]
        if missing:  # looking must not create one
            raise Failure(f"there is no database {', '.join(missing)}", fix="another --database")
        return paths
    broker = chosen(url)
    if urlsplit(broker).scheme != "sqlite":
        raise Failure(
            "services have their outboxes in databases of their own beside a server's broker",
            fix="--database sqlite:///FILE",
        )
    file = file_of(broker)
    return sorted(file.parent.glob(f"{file.stem}.*.db"))
