"""`callcast demo --broker`: on a server its account closes too, and it leaves no group behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from operator_parts import records, run
from servers import OwnServer

pytestmark = pytest.mark.timeout(150)

DEMO = (sys.executable, "-m", "callcast", "demo")
GROUPS = {"orders", "inventory", "payments", "fulfilment", "notifications"}
SHOP = Path(__file__).parents[2] / "examples"


EMBEDDED = pytest.param("sqlite", marks=pytest.mark.battery)  # the demo is embedded by default


@pytest.fixture(params=[EMBEDDED, "rabbitmq_url", "a_kafka_of_its_own"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A broker on which no other session runs a shop: the names of the shop's groups are fixed."""
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path / 'theirs.db'}"
        assert run("topology", "apply", "operator_parts:OTHERS", "--broker", found).exit_code == 0
        return found
    server: str | OwnServer = request.getfixturevalue(request.param)
    return server.url if isinstance(server, OwnServer) else server


def environment(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "demos"
    folder.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(folder)}


def groups(url: str) -> set[str]:
    """The shop's groups that the broker has."""
    return {str(row["group"]) for row in records("queues", "--broker", url)} & GROUPS


def played(url: str, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "callcast", "demo", "--broker", url, *options],
        capture_output=True,
        text=True,
        timeout=140,
        env=environment(tmp_path),
        check=False,
    )


def test_its_account_closes_there_too_and_its_groups_are_gone(url: str, tmp_path: Path) -> None:
    ran = played(url, tmp_path, "--orders", "40", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    account = json.loads(ran.stdout)
    assert account["placed"] == 40
    assert account["confirmed"] == account["fulfilled"] > 10
    assert (account["lost"], account["twice"], account["redriven"]) == (0, 0, 1)
    assert len(account["faults"]) == 5
    assert all(fault["in_flight"] > 0 for fault in account["faults"])
    assert groups(url) == set()
    assert list((tmp_path / "demos").iterdir()) == []


def test_where_a_shop_is_already_it_does_not_begin(url: str, tmp_path: Path) -> None:
    """It could not tell its own messages from theirs, and would end their groups."""
    service: Sequence[str] = ("shop.notifications:service", "--broker", url)
    applied = subprocess.run(
        [sys.executable, "-m", "callcast", "topology", "apply", *service],
        cwd=SHOP,
        capture_output=True,
        check=False,
    )
    assert applied.returncode == 0
    ran = played(url, tmp_path, "--orders", "20")
    assert ran.returncode == 2
    assert "the groups of a shop already (notifications)" in ran.stderr
    assert groups(url) == {"notifications"}
    ended = run("topology", "retire", "notifications", "--yes", "--broker", url)
    assert ended.exit_code == 0, ended.stderr


def test_interrupted_it_leaves_no_group_there(url: str, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*DEMO, "--broker", url, "--orders", "200"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    assert running.stderr is not None
    while "poison order" not in running.stderr.readline():
        assert running.poll() is None
    assert groups(url) == GROUPS
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=90)
    assert running.returncode == 130
    assert groups(url) == set()


def test_a_broker_in_one_process_is_none_for_five() -> None:
    result = run("demo", "--broker", "memory://")
    assert result.exit_code == 2
    assert "lives inside one process" in result.stderr
