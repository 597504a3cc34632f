"""The operator's commands, with the same words and the same answers, on every broker."""

from __future__ import annotations

import asyncio
import importlib
import secrets
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest
from operator_parts import records, run, write_module

from callcast import Bus

pytestmark = pytest.mark.timeout(120)

BINDS = 5.0
"""Seconds within which a pause binds every worker."""


@pytest.fixture(params=["sqlite", "rabbitmq", "kafka"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A broker that keeps what was consumed."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}?retain=3600"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return f"{found}?retain=3600"


@pytest.fixture
def till(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType]:
    """A module whose names no other test has; its groups end with the test."""
    name = f"till{secrets.token_hex(4)}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", url)
    write_module(tmp_path, name, topic=f"{name}.orders", prefix=f"{name}-")
    module = importlib.import_module(name)
    yield module
    for group in ("mail", "stock"):
        run("topology", "retire", f"{name}-{group}", "--yes")
    sys.modules.pop(name, None)


class Groups:
    """What the commands say of this module's groups."""

    def __init__(self, till: ModuleType) -> None:
        self.name = till.__name__
        self.topic: str = till.PLACED.topic
        self.mail = f"{self.name}-mail"
        self.stock = f"{self.name}-stock"

    def depths(self, column: str) -> dict[str, object]:
        """By the last word of the group's name, of the topic of orders.

        Each group is asked for by name: the server may have hundreds of others.
        """
        return {
            str(row["group"]).rpartition("-")[2]: row[column]
            for group in (self.mail, self.stock)
            for row in records("queues", "--group", group)
            if row["topic"] == self.topic
        }


def apply(till: ModuleType) -> None:
    result = run("topology", "apply", f"{till.__name__}:mail", f"{till.__name__}:stock")
    assert result.exit_code == 0, result.stderr


def publish(till: ModuleType, url: str, *orders: str, handles: bool = False) -> None:
    services = [till.mail, till.stock] if handles else []
    asyncio.run(till.publish(url, *orders, services=services))


def test_what_code_needs_is_compared_made_and_there(till: ModuleType, url: str) -> None:
    targets = (f"{till.__name__}:mail", f"{till.__name__}:stock")
    ours = {till.PLACED.topic, till.REMIND.topic}

    def states(code: int) -> set[object]:
        rows = records("topology", "diff", *targets, code=code)
        return {row["state"] for row in rows if str(row["name"]).partition("/")[0] in ours}

    assert states(code=1) == {"missing"}
    apply(till)
    assert states(code=0) == {"there"}
    publish(till, url, "tea-1")  # nothing falls between the making and the first start
    assert Groups(till).depths("ready") == {"mail": 1, "stock": 1}


def test_a_dead_letter_is_shown_and_redriven_to_its_group_alone(till: ModuleType, url: str) -> None:
    groups = Groups(till)
    publish(till, url, "piano-1", "tea-1", handles=True)
    assert groups.depths("dead") == {"mail": 0, "stock": 1}
    [letter] = records("dlq", "ls", "--group", groups.stock)
    assert (letter["id"], letter["key"], letter["attempts"]) == ("m-piano-1", "piano", 1)
    assert "no box fits 'piano-1'" in str(letter["reason"])
    assert run("dlq", "redrive", "m-piano-1", "--group", groups.stock).exit_code == 0
    assert groups.depths("ready") == {"mail": 0, "stock": 1}
    assert groups.depths("dead") == {"mail": 0, "stock": 0}


def test_a_pause_binds_running_workers_and_outlives_them(till: ModuleType, url: str) -> None:
    groups = Groups(till)
    apply(till)

    async def work() -> None:
        async with Bus(url, services=[till.mail, till.stock], name="workers") as bus:
            await bus.publish(till.PLACED, "tea-1")
            await bus.idle()
            assert till.done == ["tea-1"]
            paused = await asyncio.to_thread(run, "pause", groups.mail)
            assert paused.exit_code == 0, paused.stderr
            await asyncio.sleep(BINDS)
            await bus.publish(till.PLACED, "tea-2")
            await asyncio.sleep(1.0)
            assert till.done == ["tea-1"]

    asyncio.run(work())
    assert groups.depths("paused") == {"mail": True, "stock": False}
    assert groups.depths("ready") == {"mail": 1, "stock": 0}

    async def work_again() -> None:
        async with Bus(url, services=[till.mail], name="workers") as bus:
            await asyncio.sleep(1.0)
            assert till.done == ["tea-1"]
            resumed = await asyncio.to_thread(run, "resume", groups.mail)
            assert resumed.exit_code == 0, resumed.stderr
            async with asyncio.timeout(BINDS + 5.0):
                while till.done != ["tea-1", "tea-2"]:
                    await asyncio.sleep(0.05)
            await bus.idle()

    asyncio.run(work_again())
    assert groups.depths("paused") == {"mail": False, "stock": False}


def test_a_window_is_replayed_to_one_group_under_its_ids(till: ModuleType, url: str) -> None:
    groups = Groups(till)
    orders = [f"tea-{number}" for number in range(5)]
    publish(till, url, *orders, handles=True)
    assert till.done == orders
    to_mail = ("replay", groups.topic, "--to-group", groups.mail)
    listed = records(*to_mail, "--from", "10m", "--dry-run")
    assert [row["id"] for row in listed] == [f"m-{order}" for order in orders]
    at = [str(row["position"]) for row in listed]
    result = run(*to_mail, "--after", at[0], "--last", at[2])
    assert result.exit_code == 0, result.stderr
    assert groups.depths("ready") == {"mail": 2, "stock": 0}
    publish(till, url, handles=True)
    assert till.done == [*orders, *orders[1:3]]
    assert len(records(*to_mail, "--from", "10m", "--dry-run")) == 5


def test_a_group_ends_with_all_that_waits_for_it(till: ModuleType, url: str) -> None:
    groups = Groups(till)
    publish(till, url, "piano-1", handles=True)
    publish(till, url, "tea-1", "tea-2")
    kept = run("topology", "retire", groups.stock)
    assert kept.exit_code == 2
    assert "3 messages" in kept.stderr
    assert groups.depths("ready") == {"mail": 2, "stock": 2}
    ended = run("topology", "retire", groups.stock, "--yes")
    assert ended.exit_code == 0, ended.stderr
    assert groups.depths("ready") == {"mail": 2}
    publish(till, url, "tea-3", handles=True)
    assert till.done == ["piano-1", "tea-1", "tea-2", "tea-3"]
