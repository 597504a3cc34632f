"""`replay` on the file of an embedded broker that keeps its log."""

from __future__ import annotations

import asyncio
import importlib
import shlex
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from operator_parts import on_broker, records, run, write_module

from callcast.brokers.memory import MemoryBroker
from callcast.cli.replaying import REPLAYED_BY, Replay, Terms, Window
from callcast.core.errors import NotSent, Unavailable, Unpublished
from callcast.core.message import Message
from callcast.ports.broker import Broker, Source
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock
from callcast.testing.clock import ManualClock

ORDERS = tuple(f"tea-{number}" for number in range(5))
TO_STOCK = ("replay", "orders.placed", "--to-group", "stock")


@pytest.fixture
def till(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType]:
    """Five orders that both groups have handled."""
    url = f"sqlite:///{tmp_path / 'shop.db'}?retain=3600"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", url)
    write_module(tmp_path, "till")
    module = importlib.import_module("till")
    asyncio.run(module.publish(url, *ORDERS, services=[module.mail, module.stock]))
    module.done.clear()
    module.url = url
    yield module
    sys.modules.pop("till", None)


def waiting() -> dict[object, object]:
    """Messages that wait, by group of the topic."""
    return {r["group"]: r["ready"] for r in records("queues") if r["topic"] == "orders.placed"}


def test_a_window_in_time_goes_to_one_group_alone(till: ModuleType) -> None:
    result = run(*TO_STOCK, "--from", "1h")
    assert result.exit_code == 0, result.stderr
    assert waiting() == {"mail": 0, "stock": 5}


def test_what_is_replayed_is_handled_again_in_its_order_and_keeps_its_ids(till: ModuleType) -> None:
    assert run("replay", "orders.placed", "--to-group", "mail", "--from", "1h").exit_code == 0

    async def look(broker: Broker) -> None:
        worker = await broker.consume(Source("orders.placed", "mail", ordered=True))
        taken = await worker.fetch(10, 1.0)
        assert [one.message.id for one in taken] == [f"m-{order}" for order in ORDERS]
        assert all("@" in one.message.headers[REPLAYED_BY] for one in taken)
        await worker.close()

    on_broker(till.url, look)
    asyncio.run(till.publish(till.url, services=[till.mail, till.stock]))
    assert till.done == list(ORDERS)


def test_a_dry_run_lists_positions_and_times_and_changes_nothing(till: ModuleType) -> None:
    listed = records(*TO_STOCK, "--from", "1h", "--dry-run")
    assert [row["id"] for row in listed] == [f"m-{order}" for order in ORDERS]
    assert [row["key"] for row in listed] == ["tea"] * 5
    assert all(row["position"] and "T" in str(row["published"]) for row in listed)
    assert waiting() == {"mail": 0, "stock": 0}


def test_a_window_between_positions_is_behind_one_and_up_to_another(till: ModuleType) -> None:
    at = [str(row["position"]) for row in records(*TO_STOCK, "--from", "1h", "--dry-run")]
    window = ("--after", at[0], "--last", at[2])
    listed = records(*TO_STOCK, *window, "--dry-run")
    assert [row["id"] for row in listed] == ["m-tea-1", "m-tea-2"]
    assert run(*TO_STOCK, *window).exit_code == 0
    assert waiting() == {"mail": 0, "stock": 2}


def test_a_window_that_has_ended_leaves_out_what_came_later(till: ModuleType) -> None:
    assert records(*TO_STOCK, "--from", "2h", "--to", "1h", "--dry-run") == []
    result = run(*TO_STOCK, "--from", "2h", "--to", "1h")
    assert result.exit_code == 0
    assert waiting() == {"mail": 0, "stock": 0}


def test_new_ids_are_new_and_name_what_they_repeat(till: ModuleType) -> None:
    assert run(*TO_STOCK, "--from", "1h", "--new-ids").exit_code == 0

    async def look(broker: Broker) -> None:
        worker = await broker.consume(Source("orders.placed", "stock", ordered=True))
        taken = [one.message for one in await worker.fetch(10, 1.0)]
        assert [one.causation_id for one in taken] == [f"m-{order}" for order in ORDERS]
        assert not {one.id for one in taken} & {f"m-{order}" for order in ORDERS}
        await worker.close()

    on_broker(till.url, look)


def test_a_replay_is_not_replayed_again(till: ModuleType) -> None:
    assert run(*TO_STOCK, "--from", "1h").exit_code == 0
    assert len(records(*TO_STOCK, "--from", "1h", "--dry-run")) == 5


@pytest.mark.parametrize(
    ("args", "text", "remedy"),
    [
        ((), "say from when", "15m"),
        (("--from", "soon"), "'soon' is no time", "15m"),
        (("--from", "1h", "--to", "2h"), "the window is empty", "15m"),
        (("--from", "2099-01-01T00:00"), "the window is empty", "15m"),
        (("--from", "1h", "--after", "x"), "'x' is no position", "number"),
    ],
)
def test_a_window_that_is_none_is_said(
    till: ModuleType, args: Sequence[str], text: str, remedy: str
) -> None:
    result = run(*TO_STOCK, *args, "--dry-run")
    assert result.exit_code == 2
    assert text in result.stderr
    assert remedy in result.stderr


def test_a_group_that_hears_nothing_of_the_topic_is_said(till: ModuleType) -> None:
    result = run("replay", "orders.placed", "--to-group", "stok", "--from", "1h")
    assert result.exit_code == 2
    assert "stock, perhaps" in result.stderr
    result = run("replay", "orders.paid", "--to-group", "stock", "--from", "1h")
    assert result.exit_code == 2
    assert "hears nothing of topic 'orders.paid'" in result.stderr


def test_a_broker_that_keeps_no_log_says_what_to_do(
    till: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(*TO_STOCK, "--from", "1h", "--broker", till.url.partition("?")[0])
    assert result.exit_code == 2
    assert "retain=SECONDS" in result.stderr


def test_what_stops_midway_says_how_to_go_on(
    till: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(registry.open_broker(till.url, AsyncioClock()))
    publish = kind.publish

    async def refuse_the_fourth(self: Broker, messages: Sequence[Message]) -> None:
        await publish(self, messages[:3])
        raise Unpublished([None, None, None, NotSent("no room"), None])

    with monkeypatch.context() as patch:
        patch.setattr(kind, "publish", refuse_the_fourth)
        result = run(*TO_STOCK, "--from", "1h")
    assert result.exit_code == 5
    assert "stopped after 3: no room" in result.stderr
    command = result.stderr.partition("try: callcast ")[2]
    assert waiting()["stock"] == 3
    assert run(*shlex.split(command)).exit_code == 0
    assert waiting()["stock"] == 5


def test_a_broker_that_goes_away_stops_it_too(
    till: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(registry.open_broker(till.url, AsyncioClock()))

    async def away(self: Broker, messages: Sequence[Message]) -> None:
        raise Unavailable("the broker is away")

    monkeypatch.setattr(kind, "publish", away)
    result = run(*TO_STOCK, "--from", "1h")
    assert result.exit_code == 5
    assert "stopped after 0: the broker is away" in result.stderr


async def test_a_rate_is_kept() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock, retain=3_600.0)
    source = Source("orders", "mail")
    await broker.ensure(["orders"], [source])
    message = Message("m", "test", "orders", "orders", b"1")
    await broker.publish([message] * 6)
    window = Window("orders", 0.0, clock.wall() + 1.0)
    told: list[tuple[int, float]] = []
    began = clock.now()
    replay = Replay(broker, window, Terms(group="mail", by="me", rate=2.0), clock=clock)
    running = asyncio.ensure_future(replay(lambda count: told.append((count, clock.now() - began))))
    while not running.done():
        await clock.advance(0.1)
    assert (await running).replayed == 6
    assert [count for count, _ in told] == [1, 2, 3, 4, 5, 6]
    assert told[-1][1] == pytest.approx(2.5, abs=0.15)
    await broker.close()


def test_progress_is_told_on_stderr(till: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callcast.cli.replay.PROGRESS", 5)
    result = run(*TO_STOCK, "--from", "1h")
    assert result.stderr == "5 so far\n"
