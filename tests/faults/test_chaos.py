"""Processes killed with SIGKILL at random while they work: nothing lost, every effect once."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos_programs import JOBS, Job, broker_url

from callcast import Bus
from callcast.ports.broker import Browses, Part, Source, need
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

PROGRAMS = Path(__file__).with_name("chaos_programs.py")
SOURCE = Source("chaos.jobs", "chaos")
WORKERS = 4
PERIOD = 0.5
KILLS = 44
KILLS_LEAST = 30
IDS_LEAST = 5_000


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    """A process that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAMS), program, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the program ended before it was ready"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL, "it ended by itself before it was killed"
    assert process.stdout is not None
    process.stdout.close()


@contextmanager
def pool(folder: Path, program: str, size: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of a program; whoever is left at the end is killed."""
    processes = [start(program, folder) for _ in range(size)]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                kill(process)


def in_flight(folder: Path, pid: int) -> int:
    """Attempts that this process began and did not end."""
    path = folder / f"attempts-{pid}.log"
    words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    begun = Counter(number for word, number in words if word == "begin")
    begun.subtract(number for word, number in words if word == "end")
    return sum(begun.values())


def attempts(folder: Path) -> Counter[int]:
    """How often each job was begun, over all processes."""
    return Counter(
        int(line.split()[1])
        for path in folder.glob("attempts-*.log")
        for line in path.read_text().splitlines()
        if line.startswith("begin")
    )


async def publish_jobs(folder: Path, count: int) -> None:
    async with Bus(broker_url(folder), name="chaos-test") as bus:
        broker = bus._engine.running.broker
        await broker.ensure([SOURCE.topic], [SOURCE])
        await asyncio.gather(*(bus.publish(JOBS, Job(number)) for number in range(count)))


async def remains(folder: Path) -> tuple[int, int]:
    """Unfinished and dead messages."""
    broker = registry.open_broker(broker_url(folder), AsyncioClock())
    try:
        lag = await broker.lag(SOURCE)
        return lag.ready + lag.leased + lag.delayed, lag.dead
    finally:
        await broker.close()


def effects(folder: Path) -> Counter[int]:
    """The effect ledger; it has no unique constraint."""
    with sqlite3.connect(folder / "broker.chaos.db") as ledger:
        return Counter(number for (number,) in ledger.execute("select number from effects"))


@pytest.mark.timeout(240)
async def test_workers_killed_at_random_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    count = 3_000
    await publish_jobs(tmp_path, count)
    hits = 0
    dice = random.Random(4)
    with pool(tmp_path, "work", WORKERS) as workers:
        for _ in range(KILLS):
            await asyncio.sleep(PERIOD)
            place = dice.randrange(WORKERS)
            victim = workers[place]
            kill(victim)
            hits += in_flight(tmp_path, victim.pid) > 0
            workers[place] = start("work", tmp_path)
        deadline = time.monotonic() + 150
        while (left := await remains(tmp_path))[0] and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
    assert left == (0, 0), "unfinished and dead messages"
    found = effects(tmp_path)
    lost = set(range(count)) - found.keys()
    twice = {number: times for number, times in found.items() if times > 1}
    assert (lost, twice) == (set(), {})
    redelivered = sum(times - 1 for times in attempts(tmp_path).values())
    assert hits >= KILLS_LEAST
    assert redelivered >= KILLS_LEAST


@pytest.mark.timeout(180)
async def test_a_publisher_killed_at_random_loses_no_confirmed_message(tmp_path: Path) -> None:
    await publish_jobs(tmp_path, 0)
    dice = random.Random(5)
    under_way = 0
    confirmed: set[str] = set()
    while under_way < KILLS_LEAST or len(confirmed) < IDS_LEAST:
        publisher = start("publish", tmp_path)
        await asyncio.sleep(dice.uniform(0.1, 0.5))
        kill(publisher)
        begun = set((tmp_path / f"begun-{publisher.pid}.log").read_text().split())
        done = (tmp_path / f"confirmed-{publisher.pid}.log").read_bytes()
        # A line that the kill cut short was not confirmed.
        ids = set(done[: done.rfind(b"\n") + 1].decode().split())
        confirmed |= ids
        under_way += bool(begun - ids)
    stored = await stored_ids(tmp_path)
    assert confirmed - stored == set()
    assert under_way >= KILLS_LEAST
    assert len(confirmed) >= IDS_LEAST


async def stored_ids(folder: Path) -> set[str]:
    broker = registry.open_broker(broker_url(folder), AsyncioClock())
    try:
        browser = need(broker, Browses)
        found: set[str] = set()
        after = ""
        while page := await browser.browse(SOURCE, part=Part.READY, after=after, limit=1_000):
            found.update(glimpse.message.id for glimpse in page)
            after = page[-1].position
        return found
    finally:
        await broker.close()
