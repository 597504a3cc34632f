"""What the demo stands on: which URL, which sources, and how it clears them away."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from callcast.brokers.memory import MemoryBroker
from callcast.cli.demo import ground as grounds
from callcast.cli.demo.ground import Ground
from callcast.cli.demo.house import examples
from callcast.cli.failure import Failure
from callcast.core.errors import Misuse, Unavailable
from callcast.ports.broker import Broker, Source
from callcast.testing.clock import ManualClock


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.syspath_prepend(examples())
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


class Lasting(MemoryBroker):
    """One that outlives its closing, as a server does; it can refuse to end groups."""

    refusals: int = 0
    error: Exception = Misuse("a killed worker is not forgotten yet")

    async def close(self) -> None:
        pass

    async def retire(self, source: Source) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise self.error
        await super().retire(source)


class Served(Ground):
    """On that broker."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        super().__init__("amqp://server/", folder)
        self._broker = broker

    def open(self, clock: object) -> Broker:
        return self._broker


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("sqlite:///x.db", "sqlite:///x.db?retain=600"),
        ("sqlite:///x.db?retain=5", "sqlite:///x.db?retain=5"),
        ("sqlite:///x.db?synchronous=normal", "sqlite:///x.db?synchronous=normal&retain=600"),
        ("amqp://a,amqp://b/v", "amqp://a,amqp://b/v?retain=600"),
        ("kafka://host:9092", "kafka://host:9092?session=6&partitions=2"),
        ("kafkas://host?ca=x", "kafkas://host?ca=x&session=6&partitions=2"),
        ("kafka://host?partitions=9&session=9", "kafka://host?partitions=9&session=9"),
    ],
)
def test_what_is_published_is_kept_where_that_is_an_option(
    tmp_path: Path, given: str, url: str
) -> None:
    ground = Ground(given, tmp_path)
    assert ground.url == url
    assert not ground.is_own


def test_its_own_file_lies_in_its_folder_and_holds_the_shops_sources(tmp_path: Path) -> None:
    ground = Ground(None, tmp_path)
    assert ground.is_own
    assert ground.url == f"sqlite:///{tmp_path / 'demo.db'}?retain=600"
    assert "orders.placed/fulfilment" in {str(source) for source in ground.sources}
    assert {source.group for source in ground.sources} >= set(grounds.SERVICES) - {"orders"}


async def test_its_groups_end_and_those_of_others_stay(tmp_path: Path) -> None:
    clock = ManualClock()
    broker = Lasting(clock)
    ground = Served(broker, tmp_path)
    await ground.take(clock)
    theirs = Source("orders.placed", "audit", ordered=True)
    await broker.ensure([], [*ground.sources, theirs])
    await ground.clear(clock)
    assert await broker.sources() == [theirs]


async def test_where_a_shop_is_it_is_not_taken(tmp_path: Path) -> None:
    clock = ManualClock()
    broker = Lasting(clock)
    ground = Served(broker, tmp_path)
    await broker.ensure([], [ground.sources[0]])
    with pytest.raises(Failure, match="has the groups of a shop already"):
        await ground.take(clock)


async def test_a_server_that_remembers_killed_workers_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounds, "LOOK", 0.0)
    clock = ManualClock()
    broker = Lasting(clock)
    ground = Served(broker, tmp_path)
    await broker.ensure([], ground.sources)
    broker.refusals = 3
    await ground.clear(clock)
    assert await broker.sources() == []


async def test_what_cannot_be_ended_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(grounds, "CLEAR", -1.0)
    clock = ManualClock()
    broker = Lasting(clock)
    ground = Served(broker, tmp_path)
    await broker.ensure([], ground.sources)
    broker.refusals, broker.error = 1, Unavailable("the server is away")
    await ground.clear(clock)
    assert "left on the broker: the server is away" in capsys.readouterr().err
    assert len(await broker.sources()) == len(ground.sources)
