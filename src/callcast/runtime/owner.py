"""Which process holds a lane or a reply address, and whether that process is still there."""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import blake2b
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


def short() -> str:
    """The name of this process as a part of a topic's name; "0" where the system does not tell."""
    pid = os.getpid()
    place, started = _place(pid), _started(pid)
    return f"{_digest(place)}-{pid}-{started}" if place and started else "0"


def is_short_of_dead(name: str) -> bool:
    """`is_dead` for what `short` returned, or for any other text: of that nothing is known."""
    here = _place(os.getpid())
    place, _, process = name.partition("-")
    pid, _, started = process.partition("-")
    if not here or place != _digest(here) or not (pid.isdecimal() and started.isdecimal()):
        return False
    return _started(int(pid)) != started


def _digest(place: str) -> str:
    return blake2b(place.encode(), digest_size=8).hexdigest()


def _started(pid: int) -> str:
    """When it was started, in ticks since the boot; empty when it is gone, also as a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    # The name in parentheses may hold anything; behind it come the state and 18 more fields.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]
