"""What a stranger gets: the wheel alone, in an empty environment, outside any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from wheel_parts import build_wheel

DISTRIBUTIONS_MAX = 18


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {"PATH", "HOME", "LANG", "TMPDIR"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(("PIP_", "SSL_", "HTTP", "http"))
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.timeout(300)
def test_the_wheel_alone_runs_the_demo_outside_the_checkout(tmp_path: Path) -> None:
    build, empty, work = (tmp_path / name for name in ("build", "empty", "work"))
    build.mkdir()
    work.mkdir()
    wheel = build_wheel(build)
    assert "callcast/examples/shop_wrong/services.py" in ZipFile(wheel).namelist()
    run(sys.executable, "-m", "venv", str(empty), cwd=work)
    python = str(empty / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=work)

    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", cwd=work).stdout)
    names = {each["name"] for each in listed} - {"callcast", "pip", "setuptools"}
    assert len(names) <= DISTRIBUTIONS_MAX, names

    command = str(empty / "bin" / "callcast")
    account = json.loads(run(command, "demo", "--orders", "20", "-o", "json", cwd=work).stdout)
    assert account["placed"] == 20
    assert (account["lost"], account["twice"]) == (0, 0)
    assert list(work.iterdir()) == []
