"""Processes that outlive the command which started them, and how to end just these.

A process id alone says little: it is used again after a while. A process is therefore known by
its id and its birth, and what it started by the session that it leads: no id is used again
while a session of that id has a member.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
STATE, SESSION, BORN = 0, 3, 19
"""Places in /proc/PID/stat after the name of the program."""
TURN = 0.05
"""Seconds between two looks at a process that is asked to end."""


class Process(NamedTuple):
    """The leader of a session."""

    pid: int
    born: str

    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return birth(self.pid) == self.born

    def members(self) -> list[int]:
        """It and all that it started, unless these went into sessions of their own."""
        if birth(self.pid) not in {None, self.born}:
            return []  # the id belongs to somebody else by now, so nothing of ours is left
        return [pid for pid, stat in stats() if int(stat[SESSION]) == self.pid]


def birth(pid: int) -> str | None:
    """When that process was born, in a form that differs between two starts of the machine.

    None when there is no such process, or only its exit code waits to be read.
    """
    stat = stat_of(pid)
    if stat is None or stat[STATE] in "ZX":
        return None
    return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()}/{stat[BORN]}"


def stat_of(pid: int) -> list[str] | None:
    """What the kernel says of a process, after its name (which may hold blanks itself)."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def stats() -> Iterator[tuple[int, list[str]]]:
    """All living processes."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            stat = stat_of(int(entry.name))
            if stat is not None and stat[STATE] not in "ZX":
                yield int(entry.name), stat


class Launched(subprocess.Popen[bytes]):
    """A process that is meant to outlive this program: nobody is warned that it still runs."""

    def __del__(self) -> None:
        """Leave it alone."""


def launch(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Launched:
    """Start a process that leads a session of its own and writes into `log`."""
    with log.open("ab") as out:
        return Launched(
            argv,
            env=env,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def known(started: Launched) -> Process:
    """The process just started, so that it is found again later."""
    return Process(started.pid, birth(started.pid) or "gone")


def end(processes: Sequence[Process], gently: int | None, patience: float) -> None:
    """End the processes and all of their sessions; `patience` seconds after asking, at once."""
    if gently is not None:
        for process in processes:
            if process.is_alive():
                tell(process.pid, gently)
        deadline = time.monotonic() + patience
        while any(process.members() for process in processes) and time.monotonic() < deadline:
            time.sleep(TURN)
    while left := [pid for process in processes for pid in process.members()]:
        for pid in left:
            tell(pid, signal.SIGKILL)
        time.sleep(TURN)


def tell(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
