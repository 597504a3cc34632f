"""Ids never repeat: not within a process, not between a parent and the child of its fork."""

from __future__ import annotations

import subprocess
import sys

from callcast.runtime.chance import Ids, system_dice

FORKS = """
import os, sys
from callcast.runtime.chance import Ids

new_id = Ids()
new_id()
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, "\\n".join(new_id() for _ in range(400)).encode())
    os._exit(0)
os.close(writing)
mine = [new_id() for _ in range(400)]
theirs = os.fdopen(reading).read().split()
os.wait()
sys.exit(len(set(mine) | set(theirs)) != 800)
"""


def test_ids_are_32_hexadecimal_digits_and_never_repeat() -> None:
    new_id = Ids()
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert {len(each) for each in ids} == {32}
    assert all(int(each, 16) >= 0 for each in ids)


def test_the_child_of_a_fork_makes_ids_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-c", FORKS], timeout=30, check=False).returncode == 0


def test_dice_are_between_zero_and_one() -> None:
    assert all(0.0 <= system_dice() < 1.0 for _ in range(1_000))
