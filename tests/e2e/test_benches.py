"""Each bench program starts, and its short run works; what it measures is not judged here."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

BENCH = Path(__file__).parents[2] / "bench"
BENCHES = runpy.run_path(str(BENCH / "readme.py"))["BENCHES"]
"""All that write results."""


LONG = [pytest.param(name, marks=pytest.mark.battery) for name in ("embedded", "policies")]


@pytest.mark.parametrize("name", ["http_calls", "startup", *LONG])
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


@pytest.mark.battery
@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["rabbitmq_url", "kafka_url"])
def test_the_short_run_of_the_bench_of_brokers_works_and_writes_nothing(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    broker = server.removesuffix("_url")
    done = subprocess.run(
        [*brokers(broker, request.getfixturevalue(server)), "--output", str(tmp_path)],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert {broker, f"{broker}_latency", f"{broker}_waiting"} <= set(told)
    assert list(tmp_path.iterdir()) == []


def test_the_bench_of_brokers_leaves_no_process_behind_when_it_is_killed(rabbitmq_url: str) -> None:
    bench = subprocess.Popen(
        brokers("rabbitmq", rabbitmq_url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        own: list[psutil.Process] = []
        while not own:
            assert bench.poll() is None
            own = [each for each in psutil.Process(bench.pid).children() if at_work(each)]
    finally:
        bench.kill()
        bench.wait()
    _, left = psutil.wait_procs(own, timeout=20)
    assert left == []


def brokers(broker: str, url: str) -> list[str]:
    bench = str(BENCH / "brokers.py")
    return [sys.executable, bench, "--quick", "--broker", broker, "--url", url]


def at_work(process: psutil.Process) -> bool:
    """Whether it is one of the bench's own, up and running."""
    try:
        return "brokers_child.py" in " ".join(process.cmdline()) and process.num_threads() > 1
    except psutil.Error:
        return False  # it has just ended


@pytest.mark.parametrize("name", BENCHES)
def test_what_a_bench_wrote_has_what_the_readme_needs(name: str) -> None:
    result = json.loads((BENCH / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert result["machine"]
    assert result["settings"]
    assert result["versions"]["callcast"]
    for goal in result["goals"]:
        assert goal.keys() == {"name", "measured", "relation", "limit", "unit", "met"}
