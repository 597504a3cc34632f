"""Several processes on one broker, and processes that are killed. Needs `opener` and `url()`."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import msgspec

from callcast.core.outcome import DEAD_REASON
from callcast.ports.broker import Part, Source
from callcast.testing.broker_suite.child import POISON, Orders
from callcast.testing.broker_suite.harness import Harness, long_case

KILLS = 10
"""As many crashes as make a message poison."""
LOOK = 0.02
"""Seconds between two looks into a ledger."""


class Processes(Harness):
    """Cases with child processes on real time; each may take many times a lease."""

    @long_case
    async def test_what_kills_its_process_ten_times_is_dead_and_its_neighbours_are_handled(
        self,
    ) -> None:
        with self._ledger() as ledger:
            source = await self.listen()
            neighbours = [f"m{number}" for number in range(20)]
            batch = [self.message(name) for name in neighbours]
            batch.insert(10, self.message("poison", body=POISON))
            await self.broker.publish(batch)
            assert await self._run_until_it_lives(source, ledger) == KILLS
            assert set(_lines(ledger)) == set(neighbours)
            [letter] = await self.take_all(await self.join(source, part=Part.DEAD))
            assert letter.message.id == "poison"
            assert letter.message.headers[DEAD_REASON] == "poison"

    @long_case
    async def test_what_kills_its_process_spares_its_neighbours_of_an_ordered_source(
        self,
    ) -> None:
        """Keys before and behind it, and what is behind it in its own: all but it are handled."""
        with self._ledger() as ledger:
            source = await self.listen(ordered=True)
            neighbours = [f"m{number}" for number in range(20)]
            batch = [self.message(name, key=f"k{name[-1]}") for name in neighbours]
            batch.insert(10, self.message("poison", key="k3", body=POISON))
            await self.broker.publish(batch)
            assert await self._run_until_it_lives(source, ledger) == KILLS
            letters = await self.take_all(await self.join(source, part=Part.DEAD))
            assert [letter.message.id for letter in letters] == ["poison"]
            assert set(_lines(ledger)) == set(neighbours)

    @long_case
    async def test_what_a_killed_process_held_is_handled_by_another(self) -> None:
        with self._ledger() as ledger, self._ledger() as second:
            source = await self.listen()
            names = await self.publish(*(f"m{number}" for number in range(20)))
            child = await self._spawn("hang", source, ledger)
            while len(_lines(ledger)) < 8:
                assert child.returncode is None, "the child ended by itself"
                await asyncio.wait_for(_a_while(), self.patience)
            child.kill()
            await self._end(child, -signal.SIGKILL)
            await self._end(await self._spawn("work", source, second), 0)
            assert set(_lines(second)) == set(names)
            assert (await self.broker.lag(source)).dead == 0

    @long_case
    async def test_processes_share_the_messages_of_a_group(self) -> None:
        with self._ledger() as ledger:
            source = await self.listen()
            names = await self.publish(*(f"m{number}" for number in range(300)))
            children = [await self._spawn("work", source, ledger, lease=60.0) for _ in range(3)]
            for child in children:
                await self._end(child, 0)
            assert Counter(_lines(ledger)) == Counter(names)

    @long_case
    async def test_what_many_processes_publish_arrives(self) -> None:
        with self._ledger() as ledger:
            source = await self.listen()
            worker = await self.join(source)
            batches = [tuple(f"{who}-{n}" for n in range(50)) for who in "abcd"]
            children = [await self._spawn("publish", source, ledger, names=b) for b in batches]
            for child in children:
                await self._end(child, 0)
            assert sorted(await self.finish(worker)) == sorted(sum(batches, ()))

    async def _run_until_it_lives(self, source: Source, ledger: str) -> int:
        """Start workers, one after the other, until one ends well; how many were killed."""
        killed = 0
        while await self._end(await self._spawn("work", source, ledger), 0, -signal.SIGKILL):
            killed += 1
            assert killed <= KILLS, "it is run again and again"
        return killed

    async def _spawn(
        self,
        mode: Literal["publish", "work", "hang"],
        source: Source,
        ledger: str,
        *,
        lease: float | None = None,
        names: tuple[str, ...] = (),
    ) -> asyncio.subprocess.Process:
        orders = Orders(
            mode=mode,
            opener=self.opener,
            url=self.url(),
            source=source,
            ledger=ledger,
            lease=self.child_lease if lease is None else lease,
            names=names,
        )
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "callcast.testing.broker_suite.child",
            msgspec.json.encode(orders).decode(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stderr=asyncio.subprocess.PIPE,
        )

    async def _end(self, child: asyncio.subprocess.Process, *expected: int) -> int:
        """Wait for a child and return how it ended; fails when that is not expected."""
        try:
            _, errors = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            raise
        assert child.returncode in expected, f"exit code {child.returncode}:\n{errors.decode()}"
        return child.returncode

    @contextmanager
    def _ledger(self) -> Generator[str]:
        """A file for the lines of children; the case is left out where children cannot be."""
        if not (self.broker.traits.shared and self.broker.traits.durable):
            self.skip(f"{self.broker.traits.name} is not shared by processes")
        assert self.opener, "set `opener` and `url()`: how a child process opens the broker"
        with tempfile.TemporaryDirectory() as folder:
            yield str(pathlib.Path(folder, "ledger"))


def _lines(ledger: str) -> list[str]:
    path = pathlib.Path(ledger)
    return path.read_text().splitlines() if path.exists() else []


async def _a_while() -> None:
    """Let a child get on: it is a real process."""
    woken = asyncio.Event()
    asyncio.get_running_loop().call_later(LOOK, woken.set)
    await woken.wait()
