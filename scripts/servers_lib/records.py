"""What was started, remembered in files between two runs of the command.

Everything is in one temporary folder of the user: a record, a lock and a data folder for each
server. Whoever reads or changes a record holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from .failure import Failed
from .processes import Process

SHARED = "shared"
"""The instance that all tests use which do not hurt it."""
PORTS = range(20_000, 32_000)
"""Below those that systems give to outgoing connections: a killed server finds its own again."""


class Which(NamedTuple):
    """A server: its kind, and which one of that kind."""

    name: str
    instance: str = SHARED

    def __str__(self) -> str:
        """As its files are called."""
        return f"{self.name}@{self.instance}"

    @property
    def told(self) -> str:
        """As people read it."""
        return self.name if self.instance == SHARED else f"{self.name} ({self.instance})"


@dataclass
class Node:
    """One process of a server: how it starts, each time the same way, and as what it runs."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: str
    ready: str = ""
    """The text in the log after which it serves; without one, it serves when `port` answers."""
    port: int = 0
    url: str = ""
    helper: bool = False
    """It belongs to the server, but is not what a test kills."""
    stop_signal: int = signal.SIGTERM
    """Asks it to stop in good order."""
    drop_signal: int = signal.SIGKILL
    """Ends it when its data is not wanted any more."""
    pid: int = 0
    born: str = ""

    @property
    def process(self) -> Process:
        """As what it runs, or ran."""
        return Process(self.pid, self.born)


@dataclass
class Record:
    """A server that was started."""

    name: str
    instance: str
    folder: str
    ports: list[int]
    version: str = ""
    url: str = ""
    more: dict[str, object] = field(default_factory=dict[str, object])
    """What only this kind has: a management URL, a command."""
    nodes: list[Node] = field(default_factory=list[Node])
    ready: bool = False
    """The start went through."""
    kept: bool = False
    """Somebody started it by hand: only a `stop` by hand ends it."""
    holders: list[Process] = field(default_factory=list[Process])
    """Programs that use it; it ends with the last of them."""

    @property
    def which(self) -> Which:
        """Its name among all servers."""
        return Which(self.name, self.instance)

    @property
    def is_running(self) -> bool:
        """All of its processes run."""
        return bool(self.nodes) and all(node.process.is_alive() for node in self.nodes)

    @property
    def is_wanted(self) -> bool:
        """Somebody still uses it."""
        return self.kept or any(holder.is_alive() for holder in self.holders)

    def node(self, name: str) -> Node:
        """The process of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise Failed(f"{self.name} has no node {name!r}, only {names}")

    def save(self) -> None:
        """Write it down; whoever reads meanwhile sees the old one or the new one."""
        path = file_of(self.which)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(path)

    def forget(self) -> None:
        """It is no more."""
        file_of(self.which).unlink(missing_ok=True)


def home() -> Path:
    """The folder of everything that was started; servers that run as other users pass through."""
    folder = Path(tempfile.gettempdir()) / f"callcast-servers-{os.getuid()}"
    folder.mkdir(mode=0o711, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise Failed(f"{folder} belongs to somebody else: remove it, or set TMPDIR")
    return folder


def file_of(which: Which) -> Path:
    """Where the record is."""
    return home() / f"{which}.json"


def load(which: Which) -> Record | None:
    """The record, or None."""
    try:
        found = json.loads(file_of(which).read_text())
    except FileNotFoundError:
        return None
    found["nodes"] = [Node(**node) for node in found["nodes"]]
    found["holders"] = [Process(*holder) for holder in found["holders"]]
    return Record(**found)


def load_all() -> list[Record]:
    """Every record there is."""
    names = [path.stem.partition("@") for path in sorted(home().glob("*@*.json"))]
    found = [load(Which(name, instance)) for name, _, instance in names]
    return [record for record in found if record is not None]


@contextlib.contextmanager
def locked(what: str) -> Generator[None]:
    """Be the only one that does something to `what`; a lock ends with its process."""
    with (home() / f"{what}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is busy with {what}: waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_busy(what: str) -> bool:
    """Whether some process does something to `what` just now."""
    with (home() / f"{what}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def reserve(which: Which, ports: int) -> Record:
    """A new record with an empty folder, and ports that nobody uses and nobody else reserves."""
    with locked("ports"):
        taken = {port for record in load_all() for port in record.ports}
        folder = Path(tempfile.mkdtemp(prefix=f"{which}-", dir=home()))
        record = Record(*which, str(folder), free_ports(ports, taken))
        record.save()
    return record


def free_ports(count: int, taken: set[int]) -> list[int]:
    """That many ports of loopback on which nobody listens."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        if port not in taken and is_free(port):
            found.append(port)
    raise Failed(f"there are no {count} free ports from {PORTS.start} to {PORTS.stop}")


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
