"""Parts for tests of databases: what is in the table of parcels."""

from __future__ import annotations

from callcast.sessions.sqlite import SqliteDatabase


async def ids(database: SqliteDatabase) -> list[object]:
    return [row[0] for row in await database.read("select id from parcel order by id")]
