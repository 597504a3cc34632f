"""Which process holds a lane, and whether that process is still there."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

_PROC = Path("/proc")


@lru_cache(1)
def _place(pid: int) -> str:
    """Machine, boot and pid namespace: within one of them a pid means one process at a time."""
    del pid  # part of the key only: after a fork it is asked again
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def this_process() -> str:
    """A name for this process that no other process has, ever, on any machine.

    Where the system does not tell (outside Linux) it is the pid alone, and `is_dead` never says so.
    """
    pid = os.getpid()
    return f"{_place(pid)}|{pid}|{_started(pid)}"


def is_dead(owner: str) -> bool:
    """Whether the process of this name surely no longer runs; False when that cannot be known.

    What follows the name behind another ``|`` is its owner's own.
    """
    place, pid, started, *_ = *owner.split("|"), "", ""
    if not place or place != _place(os.getpid()) or not pid.isdecimal() or not started:
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When it was started, in ticks since the boot; empty when it is gone, also as a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    # The name in parentheses may hold anything; behind it come the state and 18 more fields.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]
