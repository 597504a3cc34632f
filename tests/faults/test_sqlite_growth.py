"""A million messages go through the file, and it stays small."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlite_child import SOURCE, broker_at, message

from callcast.core.outcome import DONE
from callcast.ports.broker import Lag

MESSAGES = 1_000_000
BATCH = 500
AHEAD = 20
"""Batches that the publisher may be ahead of the consumer."""


@pytest.mark.timeout(180)
@pytest.mark.battery
async def test_the_file_is_bounded_after_a_million_messages(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    broker = broker_at(path)
    await broker.ensure([], [SOURCE])
    consumer = await broker.consume(SOURCE)
    room = asyncio.Semaphore(AHEAD)
    batch = [message(f"m{number}") for number in range(BATCH)]
    largest = 0

    async def publish() -> None:
        for _ in range(MESSAGES // BATCH):
            await room.acquire()
            await broker.publish(batch)

    publishing = asyncio.ensure_future(publish())
    done = 0
    while done < MESSAGES:
        taken = await consumer.fetch(BATCH, 10.0)
        await consumer.settle([(one, DONE) for one in taken])
        before, done = done, done + len(taken)
        for _ in range(done // BATCH - before // BATCH):
            room.release()
        if done // 100_000 != before // 100_000:
            largest = max(largest, _size(tmp_path))
    await publishing
    assert await broker.lag(SOURCE) == Lag()
    await broker.close()
    # 20 batches of about 400 bytes a message are 4 MB, and 16 leases wait for their trim.
    assert largest < 64 << 20, f"{largest >> 20} MB"
    assert path.stat().st_size < 16 << 20, f"{path.stat().st_size >> 20} MB"


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.glob("broker.db*") if one.is_file())
