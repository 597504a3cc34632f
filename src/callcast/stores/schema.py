"""Which SQL text belongs to which database, and which version of the tables is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from callcast.core.errors import Misuse
from callcast.ports.session import Session

T = TypeVar("T")

_SQLITE_NOW = "((julianday('now') - 2440587.5) * 86400.0)"
"""Seconds since the epoch, to the millisecond (`unixepoch('subsec')` needs SQLite 3.42)."""

_VERSIONS = (
    "create table if not exists callcast_schema (store text primary key, version integer not null)"
)


def sqlite(text: str) -> str:
    """The text with the database's own clock where it says ``NOW``."""
    return text.replace("NOW", _SQLITE_NOW)


def text_for(texts: Mapping[str, T], dialect: str) -> T:
    """The texts of a dialect; `Misuse` naming those there are."""
    text = texts.get(dialect)
    if text is None:
        raise Misuse(f"no SQL for a {dialect!r} database: there is {', '.join(sorted(texts))}")
    return text


async def create(session: Session, store: str, *, version: int, statements: Sequence[str]) -> None:
    """Make the tables of a store when there are none; idempotent.

    Raises `Misuse` when a newer callcast has made them: an older one would write them wrongly.
    """
    await session.execute(_VERSIONS)
    rows = await session.fetch("select version from callcast_schema where store = ?", store)
    if not rows:
        for statement in statements:
            await session.execute(statement)
        await session.execute("insert into callcast_schema values (?, ?)", store, version)
        return
    found = rows[0][0]
    if found != version:
        raise Misuse(
            f"the {store} tables have version {found!r}, this callcast knows version {version}:"
            " upgrade callcast, or let it use another database"
        )
