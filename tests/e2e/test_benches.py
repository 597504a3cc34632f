"""Each bench program starts, and its short run works; what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("name", ["embedded", "http_calls", "policies", "startup"])
def test_the_short_run_of_a_bench_works_and_leaves_the_results_alone(
    name: str, tmp_path: Path
) -> None:
    written = BENCH / "results" / f"{name}.json"
    before = written.read_bytes() if written.exists() else None
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--quick"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{name}: " in done.stdout.splitlines()[0]
    assert (written.read_bytes() if written.exists() else None) == before


@pytest.mark.parametrize("name", ["embedded", "http_calls", "policies", "startup"])
def test_what_a_bench_wrote_has_what_the_readme_needs(name: str) -> None:
    result = json.loads((BENCH / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert result["machine"]
    assert result["settings"]
    assert result["versions"]["callcast"]
    for goal in result["goals"]:
        assert goal.keys() == {"name", "measured", "relation", "limit", "unit", "met"}
