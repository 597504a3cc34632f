"""For tests of databases: one with a table of parcels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callcast.runtime.clock import AsyncioClock
from callcast.sessions.sqlite import SqliteDatabase


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(str(tmp_path / "shop.db"), clock=AsyncioClock())
    async with database.begin() as session:
        await session.execute("create table parcel (id text primary key)")
    yield database
    await database.close()
