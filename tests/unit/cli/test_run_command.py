"""`callcast run`: what it loads, what it refuses, and that it drains when it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result

from callcast.cli.app import main
from callcast.cli.failure import Failure, Interrupted
from callcast.cli.loading import load
from callcast.cli.run import bus_of, listener, serve
from callcast.runtime.bus import Bus
from callcast.runtime.service import Service

PROGRAM = """
import asyncio
import logging
from pathlib import Path
from callcast import Bus, Event, Operation, Service

SLOW = Operation("till.slow", float, str, http="POST /slow", deadline=20.0)
SELL = Operation("till.sell", str, None, http="POST /sell")
SOLD = Event("till.sold", str)
TICK = Event("till.tick", int, unheard=True)
service = Service("till")
bus = Bus("memory://", services=[service], name="given")
log = logging.getLogger("till")

@service.serves(SLOW)
async def slow(seconds: float) -> str:
    Path("slow.started").touch()
    await asyncio.sleep(seconds)
    return "done"

@service.serves(SELL)
async def sell(sku: str, bus: Bus) -> None:
    log.info("selling %s", sku)
    await bus.publish(SOLD, sku)
    if sku == "nothing":
        raise ZeroDivisionError

@service.on(SOLD)
def note(sku: str) -> None:
    log.info("sold %s", sku)

broken = Service("broken")

@broken.on(TICK)
async def on_tick(tick: int, what: list) -> None: ...
"""


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["run", *args])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "till_program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLCAST_BROKER", raising=False)
    yield tmp_path
    sys.modules.pop("till_program", None)
    while str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


class Running:
    """A `callcast run` of its own."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "callcast", "run", "--port", "0", "--log", "json", *args],
            cwd=folder,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, object]] = []
        self.url = f"http://127.0.0.1:{self.until('ready')['port']}"

    def until(self, event: str) -> dict[str, object]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            assert line.startswith("{"), line
            self.lines.append(json.loads(line))
            if self.lines[-1].get("event") == event:
                return self.lines[-1]
        raise AssertionError(f"{event} never came: {self.lines}")

    def get(self, path: str) -> int:
        return self.ask(path, None, {})

    def ask(self, path: str, body: bytes | None, headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def end(self) -> int:
        assert self.process.stderr is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        with self.process.stderr:
            self.lines.extend(
                json.loads(line) for line in self.process.stderr if line.startswith("{")
            )
        return self.process.wait(20)


def test_a_service_serves_until_sigterm_and_finishes_what_is_under_way(folder: Path) -> None:
    running = Running(folder, "till_program:service")
    assert (running.get("/livez"), running.get("/readyz")) == (200, 200)
    ask = (
        "import sys, urllib.request as r\n"
        f"q = r.Request('{running.url}/slow', b'1.5', {{'Content-Type': 'application/json'}})\n"
        "print(r.urlopen(q).read().decode())"
    )
    asking = subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 10.0
    while not (folder / "slow.started").exists() and time.monotonic() < until:
        time.sleep(0.01)
    running.process.send_signal(signal.SIGTERM)
    running.until("draining")
    assert running.get("/readyz") == 503
    assert running.get("/livez") == 200
    assert asking.communicate(timeout=10)[0] == '"done"\n'
    assert running.end() == 0
    assert [line["event"] for line in running.lines if "event" in line][-1] == "stopped"


def test_ctrl_c_drains_and_exits_130(folder: Path) -> None:
    running = Running(folder, "till_program:bus")
    assert running.lines[-1]["bus"] == "given"
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 130


def test_it_drains_when_its_parent_is_gone_and_not_because_it_says_something(folder: Path) -> None:
    running = Running(folder, "till_program:bus", "--until-eof")
    assert running.process.stdin is not None
    running.process.stdin.write("hello")
    running.process.stdin.flush()
    assert running.get("/readyz") == 200
    running.process.stdin.close()
    assert running.until("draining")["reason"] == "the lifeline ended"
    assert running.end() == 0


def test_without_being_asked_it_does_not_mind_the_end_of_its_input(folder: Path) -> None:
    running = Running(folder, "till_program:bus")
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.get("/readyz") == 200
    running.process.send_signal(signal.SIGTERM)
    assert running.until("draining")["reason"] == "SIGTERM"
    assert running.end() == 0


def test_an_input_that_does_not_end_with_anybody_is_refused(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "callcast", "run", "till_program:bus", "--until-eof"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "standard input is no pipe" in ran.stderr


def test_a_taken_port_is_said_in_a_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("till_program:service", "--port", str(port), "--broker", "memory://")
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}: Address already in use" in result.stderr
    assert "--port 0" in result.stderr


def test_a_port_that_there_cannot_be_is_a_usage_error(folder: Path) -> None:
    result = run("till_program:service", "--port", "99999", "--broker", "memory://")
    assert result.exit_code == 2
    assert "99999 is not in the range" in result.stderr


def test_an_address_that_is_not_ours_is_said(folder: Path) -> None:
    with pytest.raises(OSError, match=r"8\.8\.8\.8:0") as caught:
        listener("8.8.8.8", 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_wrong_handler_stops_the_start_with_its_place(folder: Path) -> None:
    result = run("till_program:broken", "--port", "0")
    assert result.exit_code == 2
    assert "till_program.on_tick" in result.stderr
    assert "'what'" in result.stderr


def test_services_share_a_bus_and_a_bus_is_taken_as_it_is() -> None:
    one, two = Service("one"), Service("two")
    bus = bus_of([one, two], "memory://", {"three": "http://three"})
    assert bus.services == (one, two)
    mine = Bus("memory://", services=[one])
    assert bus_of([mine], None, {}) is mine


@pytest.mark.parametrize(
    ("found", "url", "text"),
    [
        ([3], None, "not int"),
        ([Bus("memory://", name="b")], "memory://", "says itself"),
        ([Service("one"), Bus("memory://", name="b")], None, "not Bus"),
    ],
)
def test_what_cannot_be_run_is_refused(found: Sequence[object], url: str | None, text: str) -> None:
    with pytest.raises(Failure, match=text):
        bus_of(found, url, {})


@pytest.mark.parametrize("peer", ["orders", "=http://x", "orders="])
def test_a_peer_is_a_name_and_a_url(folder: Path, peer: str) -> None:
    result = run("till_program:service", "--peer", peer)
    assert result.exit_code == 2
    assert "NAME=URL" in result.stderr


@pytest.mark.parametrize(
    ("spec", "text", "fix"),
    [
        ("till_program", "not MODULE:NAME", ""),
        ("no_such_program:service", "no module 'no_such_program'", "in the folder"),
        ("till_program:servce", "has no 'servce'", "till_program:service"),
        ("till_program:nothing_like_it", "has no 'nothing_like_it'", ""),
        ("needy:service", "needs a_library_that_is_not_there", ""),
    ],
)
def test_what_cannot_be_loaded_is_said(folder: Path, spec: str, text: str, fix: str) -> None:
    (folder / "needy.py").write_text("import a_library_that_is_not_there")
    with pytest.raises(Failure, match=text) as caught:
        load(spec)
    assert fix in caught.value.fix


def test_a_part_of_the_bus_that_fails_ends_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing() -> None:
        raise ZeroDivisionError("a part is broken")

    class Doomed(Bus):
        async def __aenter__(self) -> Self:
            await super().__aenter__()
            self._engine.running.tasks.start(failing(), name="part")
            return self

    with pytest.raises(ZeroDivisionError):
        asyncio.run(serve(Doomed("memory://", name="b"), listener("127.0.0.1", 0)))


def test_the_logs_of_a_run_carry_ids(folder: Path) -> None:
    running = Running(folder, "till_program:service", "--log", "debug")
    headers = {"Content-Type": "application/json"}
    for sku, request in (("tea", "r-1"), ("nothing", "r-2")):
        own = headers | {"X-Correlation-ID": request}
        status = running.ask("/sell", f'"{sku}"'.encode(), own)
        assert status == (500 if sku == "nothing" else 204)
    for _ in range(2):
        running.until("message settled")
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 0
    told = {"lag measured"}  # about a group, and in no request's name
    told |= {"ready", "draining", "stopped"}  # about the process
    told |= {"event loop blocked"}  # by a busy machine
    lines = [line for line in running.lines if line["logger"] != "uvicorn.error"]
    lines = [line for line in lines if line.get("event") not in told]
    assert {
        request: sorted(str(line.get("event", line["message"])) for line in lines_of)
        for request, lines_of in by_request(lines).items()
    } == {
        "r-1": ["message settled", "selling tea", "sold tea"],
        "r-2": [
            "message settled",
            "selling nothing",
            "sold nothing",
            "unexpected error while serving a call",
        ],
    }
    for of_request in by_request(lines).values():
        (call,) = {line["message_id"] for line in of_request if "selling" in str(line["message"])}
        causes = {line["causation_id"] for line in of_request if "sold" in str(line["message"])}
        assert call
        assert causes == {call}


def by_request(
    lines: Sequence[Mapping[str, object]],
) -> Mapping[object, Sequence[Mapping[str, object]]]:
    found: dict[object, list[Mapping[str, object]]] = {}
    for line in lines:
        found.setdefault(line["correlation_id"], []).append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains_and_a_second_one_is_no_longer_ours(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    handlers: list[object] = []

    class Signalled(Bus):
        async def __aenter__(self) -> Self:
            await super().__aenter__()
            os.kill(os.getpid(), number)
            return self

        async def __aexit__(self, *exc: object) -> None:
            handlers.append(signal.getsignal(number))
            await super().__aexit__(*exc)  # type: ignore[arg-type]

    bus, listening = Signalled("memory://", name="b"), listener("127.0.0.1", 0)
    with caplog.at_level("INFO", logger="callcast"):
        if number is signal.SIGINT:
            with pytest.raises(Interrupted):
                asyncio.run(serve(bus, listening))
        else:
            asyncio.run(serve(bus, listening))
    assert f"reason='{number.name}'" in caplog.text
    # asyncio.run has a handler of its own for Ctrl-C, and puts the default back for the rest.
    assert handlers[0] in {signal.SIG_DFL, signal.default_int_handler}


def test_debug_logs_every_fact(folder: Path) -> None:
    result = run("till_program:broken", "--port", "0", "--log", "debug")
    assert result.exit_code == 2
    assert logging.getLogger("callcast").level == logging.NOTSET


def test_peers_are_handed_to_the_bus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Bus] = []

    async def note(bus: Bus, listening: socket.socket, *, lifeline: int | None) -> None:
        assert lifeline is None
        listening.close()
        served.append(bus)

    monkeypatch.setattr("callcast.cli.run.serve", note)
    result = run("till_program:service", "--port", "0", "--peer", "orders=http://orders:8080")
    assert result.exit_code == 0
    assert "orders" in served[0]._engine._plan.peers
