"""The figures of the README are those that the benches wrote, the missed goals among them."""

from __future__ import annotations

import json
import re
import runpy

import pytest
from readme_parts import README, ROOT

BENCH = runpy.run_path(str(ROOT / "bench" / "readme.py"))


def test_the_readme_states_what_the_benches_measured() -> None:
    assert BENCH["written"](README) == README, "run: python bench/readme.py"


def test_every_ratio_that_was_measured_is_stated() -> None:
    """Those without a goal too: a peer that is named in a bench has its figure in the README."""
    stated = {line for line in README.splitlines() if line.count("|") == 6}
    for bench in BENCH["BENCHES"]:
        result = json.loads((ROOT / "bench" / "results" / f"{bench}.json").read_text())
        for name, ratio in result["ratios"].items():
            (row,) = (line for line in stated if line.startswith(f"| {bench} | {name} |"))
            assert f" {ratio['median']:.3g} x |" in row
    for peer in ("persist-queue", "huey without sync", "two groups", "stamina", "pybreaker"):
        assert any(peer in line for line in stated), peer


def test_a_missed_goal_is_stated_as_missed() -> None:
    for bench in BENCH["BENCHES"]:
        result = json.loads((ROOT / "bench" / "results" / f"{bench}.json").read_text())
        for goal in result["goals"]:
            (row,) = (
                line for line in README.splitlines() if line.startswith(f"| {goal['name']} |")
            )
            assert ("**missed**" in row) is not goal["met"], row


@pytest.mark.parametrize("bench", ["rabbitmq", "kafka"])
def test_the_picture_of_a_brokers_rates_shows_what_was_measured(bench: str) -> None:
    result = json.loads((ROOT / "bench" / "results" / f"{bench}.json").read_text())
    picture = (ROOT / "docs" / f"{bench}.svg").read_text()
    shown = set(re.findall(r">([\d,]+)</text>", picture))
    for name, figure in result["figures"].items():
        if name.partition(": ")[2] in {"publish", "consume"}:
            rate = float(format(figure["median"], ".3g"))
            assert f"{rate:,.0f}" in shown, name
    assert f"(docs/{bench}.svg)" in README
