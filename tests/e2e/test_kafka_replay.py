"""`callcast replay` on Kafka: windows of time, and of positions, which each partition has its own."""

from __future__ import annotations

import asyncio
import importlib
import secrets
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest
from operator_parts import records, run, write_module

pytestmark = pytest.mark.timeout(120)

ORDERS = [f"{kind}-{number}" for number in range(3) for kind in ("tea", "mug", "cup", "pot", "can")]


class Kept:
    """A topic of four partitions with orders in it, and a group that has handled them."""

    def __init__(self, till: ModuleType) -> None:
        self.topic: str = till.PLACED.topic
        self.group = f"{till.__name__}-mail"

    def replayed(self, *window: str) -> list[str]:
        """The ids of what such a replay would send."""
        rows = records("replay", self.topic, "--to-group", self.group, *window, "--dry-run")
        return [str(row["id"]).removeprefix("m-") for row in rows]

    def positions(self) -> dict[str, dict[int, str]]:
        """Which order lies where: by partition and offset."""
        rows = records("replay", self.topic, "--to-group", self.group, "--from", "1h", "--dry-run")
        found: dict[str, dict[int, str]] = {}
        before: dict[str, str] = {}
        for row in rows:
            at = dict(part.split(":") for part in str(row["position"]).split(","))
            [moved] = [number for number in at if before.get(number, "-1") != at[number]]
            found.setdefault(moved, {})[int(at[moved])] = str(row["id"]).removeprefix("m-")
            before = at
        return found


@pytest.fixture
def kept(kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Kept]:
    name = f"till{secrets.token_hex(4)}"
    url = f"{kafka_url}?partitions=4"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", url)
    write_module(tmp_path, name, topic=f"{name}.orders", prefix=f"{name}-")
    till = importlib.import_module(name)
    asyncio.run(till.publish(url, *ORDERS, services=[till.mail]))
    assert sorted(till.done) == sorted(ORDERS)
    yield Kept(till)
    run("topology", "retire", f"{name}-mail", "--yes")
    sys.modules.pop(name, None)


def test_a_position_is_partition_and_offset_and_names_what_is_wanted(kept: Kept) -> None:
    partitions = kept.positions()
    assert sorted(order for each in partitions.values() for order in each.values()) == sorted(
        ORDERS
    )
    number, orders = max(partitions.items(), key=lambda item: len(item[1]))
    assert len(orders) >= 3
    assert kept.replayed("--after", f"{number}:0") == [orders[at] for at in sorted(orders)[1:]]
    window = ("--after", f"{number}:0", "--last", f"{number}:1")
    assert kept.replayed(*window) == [orders[1]]
    others = [other for other in partitions if other != number]
    two = f"{number}:1,{others[0]}:0"
    assert kept.replayed("--after", two, "--last", two) == []
    behind = kept.replayed("--after", two)
    assert set(behind) == {
        *(order for at, order in orders.items() if at > 1),
        *(order for at, order in partitions[others[0]].items() if at > 0),
    }


def test_what_is_no_position_is_said(kept: Kept) -> None:
    result = run("replay", kept.topic, "--to-group", kept.group, "--after", "1200")
    assert result.exit_code == 2
    assert "on Kafka it is partition:offset, several separated by commas" in result.stderr


def test_a_window_of_time_ends_before_its_end(kept: Kept) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 3_000))
    assert sorted(kept.replayed("--from", "1h")) == sorted(ORDERS)
    assert kept.replayed("--from", "1h", "--to", stamp) == []
    assert kept.replayed("--from", "2h", "--to", "1h") == []
