"""`pause` and `resume` on the file of an embedded broker."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest
from operator_parts import records, run, write_module

from callcast import Bus


@pytest.fixture
def till(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", f"sqlite:///{tmp_path / 'shop.db'}")
    write_module(tmp_path, "till")
    assert run("topology", "apply", "till:mail", "till:stock").exit_code == 0
    yield importlib.import_module("till")
    sys.modules.pop("till", None)


def test_a_group_is_paused_in_all_its_topics_and_queues_say_so(till: ModuleType) -> None:
    paused = records("pause", "mail")
    assert [(row["topic"], row["paused"]) for row in paused] == [
        ("mail.remind", True),
        ("orders.placed", True),
    ]
    found = {(row["topic"], row["group"]): row["paused"] for row in records("queues")}
    assert found[("orders.placed", "stock")] is False
    assert found[("orders.placed", "mail")] is True
    assert "yes" in run("queues").stdout


def test_a_running_worker_stops_and_goes_on(till: ModuleType) -> None:
    async def work() -> None:
        async with Bus(services=[till.mail]) as bus:
            paused = await asyncio.to_thread(run, "pause", "mail", "--topic", "orders.placed")
            assert paused.exit_code == 0
            assert "callcast resume mail" in paused.stderr
            await bus.publish(till.PLACED, "tea-1")
            depth = await asyncio.to_thread(records, "queues", "--group", "mail")
            assert [r["ready"] for r in depth if r["topic"] == "orders.placed"] == [1]
            assert till.done == []
            resumed = await asyncio.to_thread(run, "resume", "mail")
            assert resumed.stderr == "mail goes on\n"
            await bus.idle()
            assert till.done == ["tea-1"]

    asyncio.run(work())


def test_a_group_that_is_none_cannot_be_paused(till: ModuleType) -> None:
    for command in ("pause", "resume"):
        result = run(command, "mial")
        assert result.exit_code == 2
        assert "mail, perhaps" in result.stderr
