"""An event that parks: a dead letter holds its key until it is redriven, the other keys go on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from callcast import Bus, Event, Refused, Service, Struct
from callcast.brokers.memory import MemoryBroker
from callcast.cli.app import main
from callcast.cli.letters import Redrive, Wanted
from callcast.runtime.clock import AsyncioClock


class Move(Struct):
    account: str
    number: int


MOVED = Event("accounts.moved", Move, key=lambda move: move.account, on_dead="park")


class Books:
    """A service that refuses the first move of account a until it is mended; another that never."""

    def __init__(self) -> None:
        self.is_mended = False
        self.booked: list[tuple[str, int]] = []
        self.audited: list[tuple[str, int]] = []
        self.ledger, self.audit = Service("ledger"), Service("audit")

        @self.ledger.on(MOVED)
        async def book(move: Move) -> None:
            if (move.account, move.number) == ("a", 1) and not self.is_mended:
                raise Refused("no such account yet")
            self.booked.append((move.account, move.number))

        @self.audit.on(MOVED)
        async def note(move: Move) -> None:
            self.audited.append((move.account, move.number))

    async def until_booked(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.booked) < count:
                await asyncio.sleep(0.01)


MOVES = [Move("a", 1), Move("a", 2), Move("b", 1), Move("a", 3)]


async def publish_all(bus: Bus) -> None:
    for move in MOVES:
        await bus.publish(MOVED, move, id=f"m-{move.account}{move.number}")
    await bus.idle()


async def test_in_memory_a_parked_key_waits_for_its_redrive() -> None:
    books, clock = Books(), AsyncioClock()
    broker = MemoryBroker(clock)
    async with Bus(broker, services=[books.ledger, books.audit], name="books") as bus:
        await publish_all(bus)
        assert books.booked == [("b", 1)]
        books.is_mended = True
        redrive = Redrive(broker, Wanted(), clock=clock, by="ops")
        done = [redriven async for redriven in redrive()]
        assert [(one.id, one.group) for one in done] == [("m-a1", "ledger")]
        await books.until_booked(4)
        await bus.idle()
    await broker.close()
    assert books.booked == [("b", 1), ("a", 1), ("a", 2), ("a", 3)]
    assert sorted(books.audited) == sorted((move.account, move.number) for move in MOVES)


def test_in_a_file_a_parked_key_stays_so_until_the_command_redrives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", url)
    books = Books()

    async def fail() -> None:
        async with Bus(url, services=[books.ledger, books.audit], name="books") as bus:
            await publish_all(bus)

    async def go_on() -> None:
        async with Bus(url, services=[books.ledger, books.audit], name="books") as bus:
            await books.until_booked(4)
            await bus.idle()

    asyncio.run(fail())
    assert books.booked == [("b", 1)]
    said = CliRunner().invoke(main, ["dlq", "redrive", "m-a1", "-o", "json"])
    assert said.exit_code == 0, said.output
    assert "ledger" in json.dumps(json.loads(said.stdout))
    books.is_mended = True
    asyncio.run(go_on())
    assert books.booked == [("b", 1), ("a", 1), ("a", 2), ("a", 3)]
    assert len(books.audited) == len(MOVES)
