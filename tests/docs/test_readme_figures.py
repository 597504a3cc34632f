"""The figures of the README are those that the benches wrote, the missed goals among them."""

from __future__ import annotations

import json
import runpy

from readme_parts import README, ROOT

BENCH = runpy.run_path(str(ROOT / "bench" / "readme.py"))


def test_the_readme_states_what_the_benches_measured() -> None:
    assert BENCH["written"](README) == README, "run: python bench/readme.py"


def test_a_missed_goal_is_stated_as_missed() -> None:
    for bench in BENCH["BENCHES"]:
        result = json.loads((ROOT / "bench" / "results" / f"{bench}.json").read_text())
        for goal in result["goals"]:
            (row,) = (
                line for line in README.splitlines() if line.startswith(f"| {goal['name']} |")
            )
            assert ("**missed**" in row) is not goal["met"], row
