"""The page for operators is true: its commands are run, in its order, and show what it shows."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from readme_parts import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FAILING = {
    "callcast topology diff till:mail till:stock": 1,
    "callcast topology retire mail": 2,
}
"""Commands of the page whose exit code it states to be another than 0."""
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Step(NamedTuple):
    command: str
    shown: str


def steps() -> list[Step]:
    """All commands of the page with what stands below them, in their order."""
    found: list[Step] = []
    for console in CONSOLES:
        for part in console.split("$ ")[1:]:
            command, _, shown = part.partition("\n")
            found.append(Step(command, shown))
    return found


@pytest.mark.timeout(120)
def test_every_command_of_the_page_shows_what_the_page_shows(tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(# till\.py.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "till.py").write_text(program)
    environ = {**os.environ, "CALLCAST_BROKER": "sqlite:///till.db?retain=3600"}
    programs = {"callcast": [sys.executable, "-m", "callcast"], "python": [sys.executable]}
    for command, shown in steps():
        name, *words = shlex.split(command)
        ran = subprocess.run(
            [*programs[name], *words],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == FAILING.get(command, 0), f"{command}: {ran.stderr}"
        assert doctest.OutputChecker().check_output(shown, ran.stdout, SAME), (
            f"{command} shows\n{ran.stdout}{ran.stderr}\nand the page\n{shown}"
        )


def test_the_page_names_every_command_of_an_operator() -> None:
    commands = {" ".join(step.command.split()[:3]) for step in steps()}
    for wanted in ("topology diff", "topology apply", "topology retire", "dlq ls", "dlq redrive"):
        assert f"callcast {wanted}" in commands
    for wanted in ("queues", "pause", "resume", "replay"):
        assert any(command.startswith(f"callcast {wanted}") for command in commands)
