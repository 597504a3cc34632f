"""`scripts/servers` with a server of our own: a shell that says when it is ready."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from servers_lib import lives, records  # noqa: E402 - its folder is no package of ours
from servers_lib.failure import Failed  # noqa: E402 - as above
from servers_lib.processes import Process, birth  # noqa: E402 - as above
from servers_lib.records import Node, Record, Which  # noqa: E402 - as above

SERVES = "echo serves; echo $$ >>starts; sleep 600 & wait"
WHICH = Which("shell")
LIMIT = 10.0


class Shell:
    """A server of two nodes, of which one is a helper."""

    ports = 2

    def __init__(self, code: str = SERVES) -> None:
        self.code = code
        self.installs = 0

    def install(self) -> None:
        self.installs += 1

    def plan(self, record: Record) -> None:
        record.url = f"shell://127.0.0.1:{record.ports[0]}"
        log = f"{record.folder}/server.log"
        argv = ["/bin/sh", "-c", self.code]
        record.nodes = [
            Node("helper", ["/bin/sleep", "600"], {}, f"{record.folder}/helper.log", helper=True),
            Node("1", argv, lives.environment(), log, ready="serves"),
        ]


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    for record in records.load_all():
        lives.discard(record)


def main_node(record: Record) -> Node:
    return record.node("1")


def test_a_server_that_runs_is_used_and_not_started_twice() -> None:
    kind = Shell()
    first = lives.start(kind, WHICH, None)
    second = lives.start(kind, WHICH, None)
    assert first.is_running
    assert main_node(second).process == main_node(first).process
    assert kind.installs == 1


def test_two_starts_at_once_start_one_server() -> None:
    kind = Shell()
    found: list[Record] = []
    threads = [
        threading.Thread(target=lambda: found.append(lives.start(kind, WHICH, None)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len({main_node(record).process for record in found}) == 1
    assert kind.installs == 1


def test_one_of_its_own_is_another_server_on_other_ports() -> None:
    shared = lives.start(Shell(), WHICH, None)
    own = lives.start(Shell(), Which("shell", "own"), None)
    assert not set(shared.ports) & set(own.ports)
    lives.kill(own.which, None)
    assert shared.is_running
    assert not own.is_running


def test_a_killed_server_comes_back_with_its_ports_and_data() -> None:
    record = lives.start(Shell(), WHICH, None)
    helper = record.node("helper").process
    lives.kill(WHICH, None)
    assert not main_node(record).process.members()
    lives.restart(WHICH, "1")
    again = records.load(WHICH)
    assert again is not None
    assert (again.url, again.ports, again.is_running) == (record.url, record.ports, True)
    assert again.node("helper").process == helper
    assert len((Path(record.folder) / "starts").read_text().splitlines()) == 2


def test_a_server_that_died_is_started_again_on_its_data() -> None:
    record = lives.start(Shell(), WHICH, None)
    lives.kill(WHICH, None)
    again = lives.start(Shell(), WHICH, None)
    assert again.is_running
    assert again.folder == record.folder


def test_a_stop_ends_all_of_its_processes_and_its_data() -> None:
    record = lives.start(Shell(), WHICH, None)
    assert lives.stop(WHICH, None)
    assert not [pid for node in record.nodes for pid in node.process.members()]
    assert not Path(record.folder).exists()
    assert records.load(WHICH) is None
    assert not lives.stop(WHICH, None)


def test_a_process_id_that_belongs_to_somebody_else_by_now_is_left_alone() -> None:
    record = lives.start(Shell(), WHICH, None)
    stranger = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    try:
        node = main_node(record)
        lives.kill(WHICH, None)
        node.pid, node.born = stranger.pid, birth(os.getpid()) or ""  # an id that is used again
        record.save()
        assert not record.is_running
        lives.stop(WHICH, None)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_it_ends_with_the_last_of_its_holders() -> None:
    other = subprocess.Popen(["/bin/sleep", "600"])
    try:
        lives.start(Shell(), WHICH, os.getpid())
        record = lives.start(Shell(), WHICH, other.pid)
        assert not lives.stop(WHICH, os.getpid())
        assert record.is_running
        assert lives.stop(WHICH, other.pid)
        assert not record.is_running
    finally:
        other.kill()
        other.wait()


def test_a_server_that_somebody_started_by_hand_outlives_its_holders() -> None:
    record = lives.start(Shell(), WHICH, None)
    lives.start(Shell(), WHICH, os.getpid())
    assert not lives.stop(WHICH, os.getpid())
    assert record.is_running


def test_what_a_dead_program_held_is_swept_away() -> None:
    other = subprocess.Popen(["/bin/sleep", "600"])
    record = lives.start(Shell(), WHICH, other.pid)
    kept = lives.start(Shell(), Which("shell", "kept"), None)
    lives.sweep()
    assert record.is_running
    other.kill()
    other.wait()
    lives.sweep()
    assert not record.is_running
    assert kept.is_running


def test_a_helper_answers_before_the_nodes_start_that_need_it() -> None:
    class Helped(Shell):
        def plan(self, record: Record) -> None:
            super().plan(record)
            helper, main = record.nodes
            helper.port = record.ports[1]
            listen = f"socket.create_server(('127.0.0.1', {helper.port}))"
            late = f"import socket, time; time.sleep(0.1); s = {listen}; time.sleep(600)"
            helper.argv = [sys.executable, "-c", late]
            ask = f"socket.create_connection(('127.0.0.1', {helper.port}))"
            main.argv = [
                sys.executable,
                "-uc",
                f"import socket, time; {ask}; print('serves'); time.sleep(600)",
            ]

    assert lives.start(Helped(), WHICH, None).is_running


def test_a_server_that_ends_at_once_says_why_and_leaves_nothing_but_its_log() -> None:
    with pytest.raises(Failed, match=r"node 1 ended with 7[^§]*no disk here"):
        lives.start(Shell("echo no disk here; exit 7"), WHICH, None)
    assert records.load(WHICH) is None
    (log,) = records.home().glob("shell@*/server.log")
    assert log.read_text() == "no disk here\n"


def test_a_server_that_never_serves_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lives, "START", 0.2)
    with pytest.raises(Failed, match="did not serve within"):
        lives.start(Shell("echo thinking; sleep 600"), WHICH, None)
    assert records.load(WHICH) is None


def test_a_start_that_broke_off_is_cleared_by_the_next() -> None:
    record = lives.start(Shell(), WHICH, None)
    broken = replace(record, ready=False)
    broken.save()
    again = lives.start(Shell(), WHICH, None)
    assert not record.is_running
    assert again.is_running


def test_a_frozen_server_stands_still_until_it_is_thawed() -> None:
    record = lives.start(Shell(), WHICH, None)
    stat = Path(f"/proc/{main_node(record).pid}/stat")
    lives.freeze(WHICH, "1")
    wait_for_state(stat, "T")
    lives.freeze(WHICH, "1", thaw=True)
    wait_for_state(stat, "S")


def wait_for_state(stat: Path, state: str) -> None:
    deadline = time.monotonic() + LIMIT
    while stat.read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_that_there_is_not_is_named_with_those_that_there_are() -> None:
    lives.start(Shell(), WHICH, None)
    with pytest.raises(Failed, match="no node '3', only helper, 1"):
        lives.kill(WHICH, "3")


def test_what_was_not_started_here_is_not_killed() -> None:
    with pytest.raises(Failed, match="was not started here"):
        lives.kill(WHICH, None)


def test_a_server_that_was_given_is_used_as_it_is(tmp_path: Path) -> None:
    url = "amqp://guest:guest@broker.example/%2F"
    done = subprocess.run(
        [ROOT / "scripts" / "servers", "start", "rabbitmq-3.10", "-o", "json"],
        env={**os.environ, "CALLCAST_TEST_RABBITMQ_3_10_URL": url, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (server,) = json.loads(done.stdout)["servers"]
    assert (server["url"], server["is_running"], server["nodes"]) == (url, True, [])
    assert records.load_all() == []


def test_a_process_that_ended_and_waits_to_be_read_is_not_alive() -> None:
    ended = subprocess.Popen(["/bin/true"])
    born = birth(ended.pid)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not Process(ended.pid, born or "").is_alive()
    ended.wait()
