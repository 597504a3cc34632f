"""`callcast demo`, for real: five processes, all faults; and that its account can tell when it is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from callcast.cli.demo import account, acts, house
from callcast.cli.demo import play as demo_play
from callcast.cli.demo.account import Evidence, Verdict
from callcast.cli.demo.play import Demo, Options
from callcast.cli.demo.view import Lines
from callcast.cli.failure import Failure

pytestmark = pytest.mark.timeout(120)

DEMO = (sys.executable, "-m", "callcast", "demo")

FIELDS = [
    "placed",
    "confirmed",
    "refused",
    "unanswered",
    "fulfilled",
    "dead",
    "redriven",
    "lost",
    "twice",
    "faults",
]

WITHOUT_INBOX = """
from callcast.cli import main
from callcast.stores.inbox import Inbox

async def nothing(*_args):
    return None

Inbox.find = Inbox.enter = Inbox.keep_reply = nothing
main()
"""

WITHOUT_OUTBOX = """
from callcast.cli import main
from callcast.stores.outbox import Outbox

async def nothing(*_args):
    return None

Outbox.add = nothing
main()
"""


def test_every_order_is_accounted_for_whatever_breaks(tmp_path: Path) -> None:
    ran = subprocess.run(
        [*DEMO, "--orders", "40", "--seed", "3", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "TMPDIR": str(tmp_path), "CALLCAST_DELAYS": "1000"},
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    numbers = json.loads(ran.stdout)
    assert list(numbers) == FIELDS
    assert numbers["placed"] == 40
    assert numbers["placed"] == numbers["confirmed"] + numbers["refused"] + numbers["unanswered"]
    assert numbers["confirmed"] == numbers["fulfilled"] + numbers["dead"] + numbers["lost"]
    assert (numbers["lost"], numbers["twice"], numbers["redriven"]) == (0, 0, 1)
    assert numbers["fulfilled"] > 10
    assert numbers["refused"] > 0  # the bank was slow, then failing
    assert [set(fault) for fault in numbers["faults"]] == [{"kind", "at", "in_flight"}] * 5
    assert all(fault["in_flight"] > 0 for fault in numbers["faults"])
    assert "CALLCAST_BREAKER_WAIT=1" in ran.stderr
    assert list(tmp_path.iterdir()) == []


async def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, orders: int = 20
) -> Verdict:
    """The demo, its services started by a script that breaks something in them."""
    monkeypatch.setattr(acts, "PATIENCE", 3.0)  # for effects that will not come
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(script)
    command = (sys.executable, str(wrapper), "run")
    return await Demo(Options(orders=orders, quiet=5.0, command=command), Lines()).run()


@pytest.mark.battery
async def test_without_the_inbox_effects_come_twice_and_undos_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Evidence] = []

    def judge(evidence: Evidence) -> Verdict:
        judged.append(evidence)
        return account.judge(evidence)

    monkeypatch.setattr(demo_play, "judge", judge)
    verdict = await play(tmp_path, monkeypatch, WITHOUT_INBOX)
    assert any(problem.startswith("a second effect") for problem in verdict.problems)
    ledgers = ("released", "voided", "parcels")
    twice = [sum(n > 1 for n in Counter(getattr(judged[-1], one)).values()) for one in ledgers]
    assert min(twice) > 0
    assert verdict.account.twice >= sum(twice)


@pytest.mark.battery
async def test_without_the_outbox_orders_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = await play(tmp_path, monkeypatch, WITHOUT_OUTBOX)
    assert verdict.account.lost > 0
    assert verdict.account.lost == verdict.account.confirmed
    assert any(problem.startswith("lost") for problem in verdict.problems)


def midway(folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A demo with its files in that folder, when it has just killed a service; its processes."""
    running = subprocess.Popen(
        [*DEMO, "--orders", "200"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    )
    assert running.stderr is not None
    while "killed with SIGKILL" not in running.stderr.readline():
        assert running.poll() is None
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(children) >= 4
    return running, children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    running, children = midway(tmp_path)
    os.killpg(running.pid, number)  # what a terminal does at Ctrl-C
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert errors.rstrip().endswith("error: interrupted")
    assert "Traceback" not in errors
    assert not [child for child in children if alive(child)]
    assert list(tmp_path.iterdir()) == []


def test_its_services_do_not_outlive_it_even_when_it_is_killed(tmp_path: Path) -> None:
    """One of them is frozen, as the demo does before it kills it."""
    running, children = midway(tmp_path)
    children[0].suspend()
    running.kill()
    running.communicate(timeout=20)
    left = [child for child in children if alive(child, 60.0)]
    for child in left:
        child.kill()
    assert not left


def alive(process: psutil.Process, patience: float = 5.0) -> bool:
    """Whether it still runs, with a little time to go."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.05)
    return True


async def test_a_service_that_does_not_start_is_said_in_a_sentence(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('the disk is full')")
    with pytest.raises(Failure, match="did not start: the disk is full"):
        await Demo(Options(orders=20, command=command), Lines()).run()


async def test_a_taken_port_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody takes it after the demo has chosen it."""
    free = house.free_ports
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        monkeypatch.setattr(house, "free_ports", lambda count: [port, *free(count - 1)])
        with pytest.raises(Failure) as caught:
            await Demo(Options(orders=20), Lines()).run()
    assert caught.value.exit_code == 2
    assert "the service 'orders' did not start" in str(caught.value)
    assert f"cannot use 127.0.0.1:{port}: Address already in use" in str(caught.value)


def test_a_missing_permission_is_said_in_a_sentence(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    # Root may write anywhere; without this capability it may not.
    unprivileged = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all"]
    ran = subprocess.run(
        [
            *(unprivileged if os.geteuid() == 0 else []),
            *DEMO,
            *("--orders", "20", "--broker", f"sqlite:///{locked / 'shop.db'}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert ran.returncode in {3, 4}
    assert f"error: cannot create {locked / 'shop.db'}: Permission denied" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == [locked]


@pytest.mark.skipif(
    os.geteuid() != 0 and os.environ.get("CI") != "true",
    reason="mounting a small file system needs root, and CI must have it",
)
@pytest.mark.parametrize(("size", "sentence"), [("600k", "disk is full"), ("2m", "is full")])
def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path, size: str, sentence: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        ran = subprocess.run(
            [*DEMO, "--orders", "100"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "TMPDIR": str(disk)},
            check=False,
        )
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert ran.returncode in {2, 3}
    assert "Traceback" not in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("error: ")
    assert sentence in ran.stderr
