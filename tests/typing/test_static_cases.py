"""The static cases say what both checkers find: no mark is there for nothing, none is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = sorted(Path(__file__).parent.glob("*_*.py"))
CASES.remove(Path(__file__))
MARK = re.compile(r"  # type: ignore\[[a-z-]+\]")
BIN = Path(sys.executable).parent


def marked(case: Path) -> set[int]:
    """The lines of a case that are to be errors."""
    lines = case.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if MARK.search(line)}


@pytest.fixture(scope="module")
def unmarked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases without their marks, so that every error shows."""
    folder = tmp_path_factory.mktemp("unmarked")
    for case in CASES:
        (folder / case.name).write_text(MARK.sub("", case.read_text()))
    return folder


@pytest.mark.timeout(300)
def test_mypy_finds_an_error_in_every_marked_line_and_in_no_other(unmarked: Path) -> None:
    command = [str(BIN / "mypy"), "--config-file", str(ROOT / "pyproject.toml")]
    files = [str(unmarked / case.name) for case in CASES]
    run = subprocess.run(
        [*command, "--no-pretty", "--no-incremental", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, set[int]] = {case.name: set() for case in CASES}
    for name, line in re.findall(r"(\w+\.py):(\d+): error", run.stdout):
        found[name].add(int(line))
    assert found == {case.name: marked(case) for case in CASES}, run.stdout + run.stderr


@pytest.mark.timeout(300)
def test_pyright_finds_an_error_in_every_marked_line_and_in_no_other(unmarked: Path) -> None:
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "standard",  # strict adds findings that follow from the first
        "pythonVersion": "3.11",
        "venvPath": str(Path(sys.prefix).parent),
        "venv": Path(sys.prefix).name,
    }
    (unmarked / "pyrightconfig.json").write_text(json.dumps(settings))
    run = subprocess.run(
        [BIN / "pyright", "--outputjson"],
        cwd=unmarked,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
    found: dict[str, set[int]] = {case.name: set() for case in CASES}
    for finding in json.loads(run.stdout)["generalDiagnostics"]:
        if finding["severity"] == "error":
            found[Path(finding["file"]).name].add(finding["range"]["start"]["line"] + 1)
    assert found == {case.name: marked(case) for case in CASES}, run.stdout
