"""The demo's house: a folder of its own, five service processes in it, and what they log."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import callcast
from callcast.cli.demo.ground import SERVICES, Ground
from callcast.cli.failure import Failure
from callcast.ports.clock import Clock

COMMAND = (sys.executable, "-m", "callcast", "run")

START = 60.0
"""Seconds for a service to become ready on a busy machine."""
STOP = 10.0
LOOK = 0.05
FREE_MIN_BYTES = 1_048_576
"""With less than this free a service that says nothing had no room to say it in."""

SETTINGS: Mapping[str, str] = {
    "CALLCAST_IMMEDIATE": "1",
    "CALLCAST_DELAYS": "0.5,1,2,4",
    "CALLCAST_BREAKER_WAIT": "1",
    "CALLCAST_BREAKER_WINDOW": "8",
    "CALLCAST_BREAKER_MINIMUM": "4",
    "CALLCAST_KILL_SWITCH_WAIT": "1",
    "CALLCAST_DRAIN": "5",
}
"""Shorter waits than the defaults, so that all is over within a minute."""


def examples() -> Path:
    """The folder that holds the package ``shop``: in the wheel, or in a checkout."""
    package = Path(callcast.__file__).parent
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / "shop" / "contracts.py").exists():
            return folder
    raise Failure("the shop is not installed with callcast", fix="pip install --force callcast")


class Log:
    """The facts that one service has logged, read as they come."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._rest = b""

    def news(self) -> Iterator[Mapping[str, object]]:
        """The records since the last look; what is no JSON is no fact."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            fresh = self._rest + file.read()
            self._offset = file.tell()
        *lines, self._rest = fresh.split(b"\n")
        for line in lines:
            with suppress(ValueError):
                record: object = json.loads(line)
                if isinstance(record, dict):
                    yield cast("Mapping[str, object]", record)

    def last_words(self) -> str:
        """The end of what was written, for the sentence that says why a service did not start."""
        text = self._path.read_text(errors="replace") if self._path.exists() else ""
        lines = [line for line in text.splitlines() if line and not line.startswith("{")]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if not lines and shutil.disk_usage(self._path.parent).free < FREE_MIN_BYTES:
            return f"the disk of {self._path.parent} is full"
        return (errors or lines or ["it said nothing"])[-1]


class Process:
    """One service: started, frozen, killed, started again."""

    def __init__(self, name: str, port: int, house: House) -> None:
        self.name = name
        self.url: str = f"http://127.0.0.1:{port}"
        self._path = house.folder / f"{name}.log"
        self.log: Log = Log(self._path)
        self._begin = 0  # where in the log this run of it begins
        self._port = port
        self._house = house
        self._running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; `ready` waits until it serves."""
        house = self._house
        with self._path.open("ab") as log:
            self._begin = log.tell()
            self._running = await asyncio.create_subprocess_exec(
                *house.command,
                f"shop.{self.name}:service",
                f"--port={self._port}",
                "--log=debug",
                "--until-eof",
                cwd=house.folder,
                env=house.environment,
                stdin=house.lifeline,
                stdout=log,
                stderr=log,
                # Ctrl-C at the terminal is the demo's alone: it ends its services itself. In the
                # demo's session they get SIGHUP by its death if they are frozen at that moment.
                process_group=0,
            )

    async def ready(self) -> None:
        """Return when it has said that it serves; a `Failure` with its last words if it ends."""
        clock, log = self._house.clock, Log(self._path, self._begin)
        until = clock.now() + START
        while clock.now() < until and self._running is not None:
            if any(record.get("event") == "ready" for record in log.news()):
                return
            if self._running.returncode is not None:
                break
            await clock.sleep(LOOK)
        raise Failure(f"the service {self.name!r} did not start: {log.last_words()}")

    def freeze(self) -> None:
        """Stop it where it is, without its noticing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Idempotent."""
        self._signal(signal.SIGKILL)
        if self._running is not None:
            await self._running.wait()

    async def stop(self) -> bool:
        """SIGTERM, which drains; whether it ended by itself within `STOP` seconds."""
        self._signal(signal.SIGTERM)
        clock = self._house.clock
        until = clock.now() + STOP
        while self._running is not None and self._running.returncode is None:
            if clock.now() > until:
                await self.kill()
                return False
            await clock.sleep(LOOK)
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._running is not None and self._running.returncode is None:
            with suppress(ProcessLookupError):
                self._running.send_signal(number)


class House:
    """The folder, the broker's URL, the environment, and the services by name."""

    def __init__(
        self, folder: Path, clock: Clock, ground: Ground, *, command: Sequence[str] = COMMAND
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.command = command
        self.ground = ground
        ports = free_ports(len(SERVICES))
        self.services: dict[str, Process] = {
            name: Process(name, port, self) for name, port in zip(SERVICES, ports, strict=True)
        }
        # Nobody else has the end that is written to: when the demo dies, its services read the end.
        self.lifeline: int
        self.lifeline, self._held = os.pipe()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the services are told: nothing of the caller's own callcast settings."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("CALLCAST_")}
        path = os.pathsep.join(filter(None, [str(examples()), os.environ.get("PYTHONPATH")]))
        peers = {f"CALLCAST_PEER_{name.upper()}": p.url for name, p in self.services.items()}
        return {
            **inherited,
            **SETTINGS,
            **peers,
            "CALLCAST_BROKER": self.ground.url,
            "CALLCAST_DATABASE": f"sqlite:///{self.folder / 'demo.{service}.db'}",
            "CALLCAST_RECORD": str(self.record),
            "CALLCAST_RECORD_SPANS": "all",
            "PYTHONPATH": path,
        }

    def database(self, service: str) -> Path:
        """Where a service keeps its ledgers."""
        return self.folder / f"demo.{service}.db"

    @property
    def record(self) -> Path:
        """Where all of them keep their record."""
        return self.folder / "demo.record"

    def set_mood(self, mood: str) -> None:
        """Make the bank fine, slow or failing."""
        (self.folder / "bank.mood").write_text(mood)

    async def open(self) -> None:
        """Start all services, side by side, and wait until each serves."""
        for process in self.services.values():
            await process.start()
        for process in self.services.values():
            await process.ready()

    async def restart(self, name: str) -> None:
        """Start a service that was killed, and wait until it serves."""
        await self.services[name].start()
        await self.services[name].ready()

    async def stop(self) -> Sequence[str]:
        """Drain all services, orders first; the names of those that had to be killed."""
        return [name for name, process in self.services.items() if not await process.stop()]

    async def close(self) -> None:
        """Leave no process behind, whatever state it is in."""
        for process in self.services.values():
            await process.kill()
        os.close(self.lifeline)
        os.close(self._held)


def free_ports(count: int) -> Sequence[int]:
    """Ports that are free now, all different."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
