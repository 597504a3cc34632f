"""Processes that write one database back to back: each gets its turn."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

WRITERS = 4
SECONDS = 8.0
SHARE = 3
"""Nobody writes so many times as often as another."""

WRITER = """
import asyncio, random, sys, time
from callcast.runtime.clock import AsyncioClock
from callcast.sessions.sqlite import SqliteDatabase

async def write():
    database = SqliteDatabase(sys.argv[1], clock=AsyncioClock())
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + float(sys.argv[2])
    count = 0
    while time.monotonic() < until:
        async with database.begin() as session:
            await session.execute("insert into parcel values (?)", count)
            await asyncio.sleep(random.uniform(0.005, 0.020))
        count += 1
    print(count)

asyncio.run(write())
"""


def _start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.execute("pragma journal_mode = wal")
        shop.execute("create table parcel (number integer)")
    started = [_start(path) for _ in range(WRITERS)]
    yield started
    for writer in started:
        writer.kill()
        writer.wait(10)
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.close()
        writer.stdout.close()


@pytest.mark.timeout(120)
def test_of_processes_that_write_back_to_back_each_gets_its_turn(
    writers: list[subprocess.Popen[str]],
) -> None:
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=60)[0] for writer in writers]
    # By default a transaction waits for the lock for 5 seconds; `Busy` would end its process.
    assert [writer.returncode for writer in writers] == [0] * WRITERS, said
    counts = [int(number) for number in said]
    assert min(counts) * SHARE > max(counts), counts
