"""Workers in real processes on one file: blocked, killed, and killed by a message."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from callcast.brokers.sqlite import SqliteBroker
from callcast.core.message import Message
from callcast.core.outcome import DEAD_REASON
from callcast.ports.broker import Part, Source
from callcast.runtime.clock import AsyncioClock

SOURCE = Source("orders", "mail")
PROGRAM = Path(__file__).with_name("worker_process.py")
PATIENCE = 30.0
"""Seconds to poll for what must come true; only a failure takes so long."""


class Place:
    """A file, its ledger, and the processes that work on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bus.db"
        self.ledger_path = folder / "ledger"
        self.ledger_path.touch()
        self.broker = SqliteBroker(self.path, clock=AsyncioClock())
        self.processes: list[asyncio.subprocess.Process] = []

    async def publish(self, **acts: str) -> None:
        await self.broker.publish(
            [
                Message(name, "test", "orders", "orders", act.encode(), time=time.time())
                for name, act in acts.items()
            ]
        )

    async def start(self, lease: float) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            str(self.path),
            str(self.ledger_path),
            str(lease),
            stdout=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    def lines(self, word: str, name: str) -> list[str]:
        """Processes that wrote this to the ledger, in order."""
        rows = (line.split() for line in self.ledger_path.read_text().splitlines())
        return [pid for *what, pid in rows if what == [word, name]]

    async def is_done(self) -> bool:
        lag = await self.broker.lag(SOURCE)
        return lag.ready == lag.leased == lag.delayed == 0

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            finally:
                if process.returncode is None:
                    process.kill()
            process._transport.close()  # type: ignore[attr-defined]  # else it is left to the GC
        await self.broker.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.broker.ensure(["orders"], [SOURCE])
    yield place
    await place.close()


async def until(is_so: Callable[[], bool | Awaitable[bool]]) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = is_so()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, f"it did not come true within {PATIENCE} s"
        await asyncio.sleep(0.02)


async def dead_letters(place: Place) -> Sequence[Message]:
    return [each.message for each in await place.broker.browse(SOURCE, part=Part.DEAD)]


async def test_a_handler_that_blocks_its_loop_for_three_leases_runs_once(place: Place) -> None:
    await place.start(lease=1.0)
    await place.publish(blocks="block:3.5")
    await until(lambda: len(place.lines("begin", "blocks")) == 1)
    other = await place.start(lease=1.0)
    await place.publish(**{f"n{number}": "quick" for number in range(5)})
    await until(lambda: all(place.lines("end", f"n{number}") for number in range(5)))
    assert place.lines("end", "n0") == [str(other.pid)]  # the first one is blocked
    assert place.lines("end", "blocks") == []
    await until(lambda: len(place.lines("end", "blocks")) == 1)
    await until(place.is_done)
    assert len(place.lines("begin", "blocks")) == 1


async def test_a_killed_worker_frees_its_messages_within_two_seconds_whatever_its_lease(
    place: Place,
) -> None:
    first = await place.start(lease=600.0)
    await place.publish(**{f"m{number}": "hold" for number in range(20)})
    await until(lambda: all(place.lines("begin", f"m{number}") for number in range(20)))
    second = await place.start(lease=600.0)
    first.kill()
    killed = time.monotonic()
    await first.wait()
    await until(lambda: all(len(place.lines("begin", f"m{n}")) == 2 for n in range(20)))
    assert time.monotonic() - killed < 2.0
    assert all(place.lines("begin", f"m{number}")[1] == str(second.pid) for number in range(20))


@pytest.mark.timeout(120)
async def test_a_process_killed_by_its_message_ten_times_leaves_it_dead_and_its_neighbours_handled(
    place: Place,
) -> None:
    names = [f"n{number}" for number in range(30)]
    acts = dict.fromkeys(names, "quick")
    await place.publish(
        **dict(list(acts.items())[:15]), poison="kill", **dict(list(acts.items())[15:])
    )
    deaths = 0
    while deaths < 10:
        process = await place.start(lease=60.0)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL
        deaths += 1
    await place.start(lease=60.0)
    await until(place.is_done)
    assert len(place.lines("begin", "poison")) == 10
    (dead,) = await dead_letters(place)
    assert dead.id == "poison"
    assert dead.body == b"kill"
    assert dead.headers[DEAD_REASON] == "poison"
    assert dead.headers["callcast-attempts"] == "10"
    for name in names:
        assert place.lines("end", name), f"{name} was not handled"
