"""The figures of the README are those that the benches wrote, and every goal among them is met."""

from __future__ import annotations

import json
import runpy

from readme_parts import README, ROOT

BENCH = runpy.run_path(str(ROOT / "bench" / "readme.py"))


def test_the_readme_states_what_the_benches_measured() -> None:
    assert BENCH["written"](README) == README, "run: python bench/readme.py"


def test_every_goal_that_the_readme_states_is_met() -> None:
    for bench in BENCH["BENCHES"]:
        result = json.loads((ROOT / "bench" / "results" / f"{bench}.json").read_text())
        missed = [goal for goal in result["goals"] if not goal["met"]]
        assert not missed, bench
