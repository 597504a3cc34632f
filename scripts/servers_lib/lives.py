"""Starts, kills, restarts and stops servers: whatever differs between kinds is in their plans."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .failure import Failed
from .processes import Launched, Process, birth, end, known, launch, tell
from .records import Node, Record, Which, is_busy, load, load_all, locked, reserve
from .tools import say

START = 90.0
"""Seconds in which a server serves, else something is wrong with it."""
STOP = 15.0
"""Seconds that a server gets to end in good order."""
TURN = 0.05
TAIL = 25
"""Lines of a log that say why a server did not start."""


class Kind(Protocol):
    """What differs between kinds of servers."""

    @property
    def ports(self) -> int:
        """How many ports a server of this kind listens on."""
        ...

    def install(self) -> None:
        """Have everything that a start needs, in the cache or on the machine."""
        ...

    def plan(self, record: Record) -> None:
        """Fill in version, URL and nodes, and prepare the data in the record's folder."""
        ...


def start(kind: Kind, which: Which, holder: int | None) -> Record:
    """Have that server running; one that runs already is used as it is.

    With a holder (a process id) it ends with the last of its holders, else with a stop by hand.
    """
    with locked(str(which)):
        record = load(which)
        if record is not None and not (record.ready and Path(record.folder).is_dir()):
            discard(record)  # an earlier start broke off, or the temporary folder was cleared
            record = None
        if record is None:
            record = new(kind, which)
        else:
            run_nodes(record, [node for node in record.nodes if not node.process.is_alive()])
        hold(record, holder)
        return record


def new(kind: Kind, which: Which) -> Record:
    """Start a server on fresh data; of one that does not come up nothing stays but the log."""
    kind.install()
    say(f"starting {which.told}")
    record = reserve(which, kind.ports)
    try:
        kind.plan(record)
        record.save()
        run_nodes(record, record.nodes)
    except BaseException:
        discard(record, keep_folder=True)
        raise
    record.ready = True
    record.save()
    return record


def run_nodes(record: Record, nodes: Sequence[Node]) -> None:
    """Start these nodes, and return when each of them serves: helpers first, for the others."""
    run_side_by_side(record, [node for node in nodes if node.helper])
    run_side_by_side(record, [node for node in nodes if not node.helper])


def run_side_by_side(record: Record, nodes: Sequence[Node]) -> None:
    """Start these nodes at once, and wait until each of them serves."""
    started: list[tuple[Node, Launched, int]] = []
    for node in nodes:
        log = Path(node.log)
        seen = log.stat().st_size if log.exists() else 0
        process = launch(node.argv, node.env, log)
        node.pid, node.born = known(process)
        record.save()
        started.append((node, process, seen))
    deadline = time.monotonic() + START
    for node, process, seen in started:
        await_ready(node, process, seen=seen, deadline=deadline)


def await_ready(node: Node, process: Launched, *, seen: int, deadline: float) -> None:
    """Return when the node serves, as its port or its log (after `seen` bytes) says."""
    log = Path(node.log)
    while not serves(node, seen):
        failed = ""
        if process.poll() is not None:
            failed = f"ended with {process.returncode}"
        elif time.monotonic() > deadline:
            failed = f"did not serve within {START:.0f} s"
        if failed:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL:])
            raise Failed(f"node {node.name} {failed}; {log} ends with:\n{tail}")
        time.sleep(TURN)


def serves(node: Node, seen: int) -> bool:
    """Whether it says so, and not another process in its place."""
    if node.ready:
        return node.ready.encode() in Path(node.log).read_bytes()[seen:]
    if not node.process.is_alive():
        return False
    with socket.socket() as probe:
        return not node.port or probe.connect_ex(("127.0.0.1", node.port)) == 0


def hold(record: Record, holder: int | None) -> None:
    """Remember who wants it."""
    if holder is None:
        record.kept = True
    else:
        born = birth(holder)
        if born is None:
            raise Failed(f"there is no process {holder} to hold {record.name}")
        record.holders = [one for one in record.holders if one.is_alive()]
        if (process := Process(holder, born)) not in record.holders:
            record.holders.append(process)
    record.save()


def stop(which: Which, holder: int | None) -> bool:
    """End that server and remove its data, or only this holder's wish; whether it ended."""
    with locked(str(which)):
        record = load(which)
        if record is None:
            return False
        if holder is not None:
            record.holders = [one for one in record.holders if one.pid != holder]
            record.save()
            if record.is_wanted:
                return False
        say(f"stopping {which.told}")
        discard(record)
        return True


def sweep() -> None:
    """End what nobody wants any more: its holders, or who started it, died without a word."""
    for record in load_all():
        if not record.is_wanted and not is_busy(str(record.which)):
            stop(record.which, holder=0)


def discard(record: Record, *, keep_folder: bool = False) -> None:
    """End all of its processes, and forget it."""
    for number in {node.drop_signal for node in record.nodes}:
        ending = [node.process for node in record.nodes if node.drop_signal == number]
        end(ending, None if number == signal.SIGKILL else number, STOP)
    if not keep_folder:
        shutil.rmtree(record.folder, ignore_errors=True)
    record.forget()


def running(which: Which) -> Record:
    """The record of a server that was started here."""
    record = load(which)
    if record is None or not record.ready:
        raise Failed(f"{which.told} was not started here: see scripts/servers status")
    return record


def chosen(record: Record, node: str | None) -> list[Node]:
    """The node of that name, or all that are no helpers."""
    if node is not None:
        return [record.node(node)]
    return [one for one in record.nodes if not one.helper]


def kill(which: Which, node: str | None) -> None:
    """End a server, or one node, as a power cut would; data and ports stay its own."""
    with locked(str(which)):
        record = running(which)
        end([one.process for one in chosen(record, node)], gently=None, patience=0)


def restart(which: Which, node: str | None) -> None:
    """Start a server, or one node, again on its data and ports; what runs is stopped gently."""
    with locked(str(which)):
        record = running(which)
        nodes = chosen(record, node)
        for one in nodes:
            end([one.process], one.stop_signal, STOP)
        helpers = [one for one in record.nodes if one.helper and not one.process.is_alive()]
        run_nodes(record, [*helpers, *nodes])


def freeze(which: Which, node: str | None, *, thaw: bool = False) -> None:
    """Let a server, or one node, stand still with its connections open; or go on."""
    with locked(str(which)):
        for one in chosen(running(which), node):
            for pid in one.process.members():
                tell(pid, signal.SIGCONT if thaw else signal.SIGSTOP)


def environment(**more: str) -> dict[str, str]:
    """What a server's process sees: nothing of the user's own settings."""
    return {"PATH": os.defpath + ":/usr/sbin:/sbin", "LANG": "C.UTF-8", **more}
