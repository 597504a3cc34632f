"""Processes killed with SIGKILL at random while they work: nothing lost, every effect once."""

from __future__ import annotations

import asyncio
import random
import select
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
KILLING_LEAST = 10.0
KILLING_MOST = 70.0
"""Seconds: killing goes on until it has hit often enough, and fails when that takes longer."""
KILLS_LEAST = 15
BACKLOG_LEAST = 1_000
"""Jobs that wait at any time, so that a kill finds work in flight."""
IDS_LEAST = 2_000


def launch(program: str, folder: Path) -> subprocess.Popen[str]:
    """A process that says when it is ready."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS), program, str(folder)], stdout=subprocess.PIPE, text=True
    )


def until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the program ended before it was ready"


def is_ready(process: subprocess.Popen[str]) -> bool:
    """Whether it has said so by now; it says nothing else, so that stays to be seen."""
    assert process.poll() is None, "the program ended by itself"
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0)[0])


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL, "it ended by itself before it was killed"
    assert process.stdout is not None
    process.stdout.close()


@contextmanager
def pool(folder: Path, program: str, size: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of a program; whoever is left at the end is killed."""
    processes = [launch(program, folder) for _ in range(size)]
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


def redeliveries(folder: Path) -> int:
    """How often a job was begun again."""
    return sum(times - 1 for times in attempts(folder).values())


async def publish_jobs(folder: Path, numbers: range) -> None:
    async with Bus(broker_url(folder), name="chaos-test") as bus:
        broker = bus._engine.running.broker
        await broker.ensure([SOURCE.topic], [SOURCE])
        await asyncio.gather(*(bus.publish(JOBS, Job(number)) for number in numbers))


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


async def kill_at_random(folder: Path, workers: list[subprocess.Popen[str]]) -> tuple[int, int]:
    """Kill a worker that is ready every period, and start another; nobody waits for the new one.

    Whenever little is left to do, more is published. How many jobs there are then, and how many
    kills hit work in flight.
    """
    dice = random.Random(4)
    began = time.monotonic()
    lasted = 0.0
    count = hits = 0
    is_enough = False
    while not (is_enough and lasted >= KILLING_LEAST) and lasted < KILLING_MOST:
        if (await remains(folder))[0] < BACKLOG_LEAST:
            await publish_jobs(folder, range(count, count + BACKLOG_LEAST))
            count += BACKLOG_LEAST
        await asyncio.sleep(PERIOD - (time.monotonic() - began) % PERIOD)
        if ready := [place for place, worker in enumerate(workers) if is_ready(worker)]:
            place = dice.choice(ready)
            victim = workers[place]
            kill(victim)
            workers[place] = launch("work", folder)
            hits += in_flight(folder, victim.pid) > 0
        is_enough = hits >= KILLS_LEAST and redeliveries(folder) >= KILLS_LEAST
        lasted = time.monotonic() - began
    return count, hits


@pytest.mark.timeout(240)
async def test_workers_killed_at_random_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    await publish_jobs(tmp_path, range(0))
    with pool(tmp_path, "work", WORKERS) as workers:
        count, hits = await kill_at_random(tmp_path, workers)
        deadline = time.monotonic() + 150
        while (left := await remains(tmp_path))[0] and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
    assert left == (0, 0), "unfinished and dead messages"
    found = effects(tmp_path)
    lost = set(range(count)) - found.keys()
    twice = {number: times for number, times in found.items() if times > 1}
    assert (lost, twice) == (set(), {})
    assert hits >= KILLS_LEAST
    assert redeliveries(tmp_path) >= KILLS_LEAST


@pytest.mark.timeout(180)
async def test_a_publisher_killed_at_random_loses_no_confirmed_message(tmp_path: Path) -> None:
    await publish_jobs(tmp_path, range(0))
    dice = random.Random(5)
    under_way = 0
    confirmed: set[str] = set()
    while under_way < KILLS_LEAST or len(confirmed) < IDS_LEAST:
        publisher = launch("publish", tmp_path)
        until_ready(publisher)
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
