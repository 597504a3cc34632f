"""The example in the suite's docstring is a whole test module: copied as it is, it runs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from callcast.testing import broker_suite

MINE = """
from callcast.brokers.sqlite import SqliteBroker
from callcast.runtime.clock import AsyncioClock


class MyBroker(SqliteBroker):
    def __init__(self, url: str) -> None:
        super().__init__(url, clock=AsyncioClock())
"""
CASES = (
    "test_what_a_killed_process_held_is_handled_by_another",
    "test_processes_share_the_messages_of_a_group",
    "test_what_was_published_survives_a_restart",
)


def example() -> str:
    text = broker_suite.__doc__ or ""
    before, _, after = text.partition("``test_mine.py`` is::\n")
    assert before
    lines = after.splitlines()
    end = next(n for n, line in enumerate(lines) if line and not line.startswith("    "))
    return textwrap.dedent("\n".join(lines[:end]))


@pytest.mark.timeout(120)
def test_the_example_runs_with_processes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "test_mine.py").write_text(example())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    ran = subprocess.run(
        [*command, "-k", " or ".join(CASES)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(CASES)} passed" in ran.stdout, ran.stdout
