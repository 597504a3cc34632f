"""What the benches share: rounds, spread, goals and the file of results."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

# By its file: with bench/ on the path, its scripts could be imported under any name.
_spec = importlib.util.spec_from_file_location(
    "bench_harness", Path(__file__).parents[3] / "bench" / "harness.py"
)
assert _spec is not None
assert _spec.loader is not None
harness = importlib.util.module_from_spec(_spec)
sys.modules["bench_harness"] = harness  # where dataclasses look for their module
_spec.loader.exec_module(harness)

Figure, Goal, Report = harness.Figure, harness.Goal, harness.Report
alternate, machine, versions = harness.alternate, harness.machine, harness.versions


def a_report(limit: float) -> harness.Report:
    report = Report("example", "ns", versions("msgspec"), {"calls": 10})
    report.figures = {"ours": Figure([10.0, 20.0, 30.0]), "theirs": Figure([100.0, 400.0, 900.0])}
    ratio = report.ratio("theirs", "ours")
    report.goals = [Goal("cost", ratio.median, ">=", limit, "x")]
    return report


def test_contenders_run_in_turn_and_warm_up_first() -> None:
    runs: list[str] = []

    def contender(name: str) -> float:
        runs.append(name)
        return float(len(runs))

    figures = alternate(
        {"a": lambda: contender("a"), "b": lambda: contender("b")}, rounds=2, warmups=1
    )
    assert "".join(runs) == "ab" + "ba" + "ab"
    assert figures["a"].rounds == [4.0, 5.0]
    assert figures["b"].rounds == [3.0, 6.0]


def test_a_ratio_is_taken_within_each_round() -> None:
    ratio = a_report(1.0).ratios["theirs / ours"]
    assert ratio.rounds == [10.0, 20.0, 30.0]
    assert (ratio.median, ratio.low, ratio.high) == (20.0, 10.0, 30.0)
    assert ratio.spread == 1.0
    assert Figure([3.0]).spread == 0.0


@pytest.mark.parametrize(("limit", "code"), [(20.0, 0), (20.1, 1)])
def test_a_missed_goal_is_an_exit_code_and_everything_is_in_the_file(
    limit: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert a_report(limit).finish(tmp_path) == code
    written = json.loads((tmp_path / "example.json").read_text(encoding="utf-8"))
    assert written["met"] is (code == 0)
    assert written["rounds"] == 3
    assert written["machine"] == machine()
    assert set(written["versions"]) == {"python", "msgspec"}
    assert written["figures"]["ours"]["median"] == 20.0
    assert written["ratios"]["theirs / ours"]["rounds"] == [10.0, 20.0, 30.0]
    assert written["goals"][0]["limit"] == limit
    assert ("MISSED" in capsys.readouterr().out) is (code == 1)
