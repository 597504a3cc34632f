"""Which process holds a lane, and whether it is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from callcast.runtime import owner
from callcast.runtime.owner import is_dead, is_short_of_dead, short, this_process


def test_this_process_is_alive_and_has_one_name() -> None:
    assert this_process() == this_process()
    assert not is_dead(this_process())
    assert not is_dead(f"{this_process()}|7")
    assert not is_short_of_dead(short())


def test_a_child_is_dead_once_it_was_killed_reaped_or_not() -> None:
    program = (
        "from callcast.runtime import owner\n"
        "print(owner.this_process(), owner.short(), flush=True)\n"
        "input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    name, short_name = child.stdout.readline().split()
    assert str(child.pid) in name
    assert not is_dead(name)
    assert not is_short_of_dead(short_name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie by now
    assert is_dead(name)
    assert is_short_of_dead(short_name)
    child.wait()
    assert is_dead(name)
    child.stdout.close()
    child.stdin.close()


def test_another_process_under_the_same_pid_is_not_taken_for_the_owner() -> None:
    place, pid, started = this_process().split("|")
    assert is_dead(f"{place}|{pid}|{int(started) - 1}")


@pytest.mark.parametrize("name", ["", "me", "|1|2", "elsewhere|1|2", "a|b|c"])
def test_of_owners_elsewhere_nothing_is_known(name: str) -> None:
    assert not is_dead(name)


@pytest.mark.parametrize(
    "change", ["", "0", "-1-2", "elsewhere-1-2", "{0}-x-2", "{0}-1", "{0}-1-2-3"]
)
def test_of_short_names_of_others_nothing_is_known(change: str) -> None:
    place, _, _ = short().split("-")
    assert not is_short_of_dead(change.format(place))


def test_a_system_that_does_not_tell_leaves_it_to_the_lease(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(owner, "_PROC", tmp_path)
    owner._place.cache_clear()
    name = this_process()
    assert name == f"|{os.getpid()}|"
    assert short() == "0"
    assert not is_dead(name)
    owner._place.cache_clear()
