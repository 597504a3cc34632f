"""The figures of the README, from the files that the benches wrote: ``python bench/readme.py``.

With ``--check`` it writes nothing and exits 1 when the README says something else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
RATIOS = (
    "All ratios, of rates (brokers: messages a second) or of costs (the other benches, CPU time,"
    " latencies and memory), over all rounds"
)
RABBITMQ = tuple(f"rabbitmq{one}" for one in ("", "_classic", "_headers", "_latency", "_waiting"))
KAFKA = tuple(f"kafka{one}" for one in ("", "_lanes", "_waiting"))
BENCHES = ("embedded", *RABBITMQ, *KAFKA, "http_calls", "policies", "startup")


def results() -> Iterator[Mapping[str, Any]]:
    """What every bench wrote."""
    for bench in BENCHES:
        yield json.loads((RESULTS / f"{bench}.json").read_text(encoding="utf-8"))


def goals() -> list[str]:
    """One row per goal of every bench, missed ones too: a figure is stated as it was measured."""
    rows = ["| what | measured | goal | |", "|---|--:|--:|---|"]
    for result in results():
        for goal in result["goals"]:
            unit = goal["unit"] and f" {goal['unit']}"
            measured = f"{goal['measured']:.3g}{unit}"
            limit = f"{goal['relation']} {goal['limit']:g}{unit}"
            verdict = "met" if goal["met"] else "**missed**"
            rows.append(f"| {goal['name']} | {measured} | {limit} | {verdict} |")
    return rows


def ratios() -> list[str]:
    """One row per ratio of every bench, those without a goal too, with the rounds' extremes."""
    rows = ["| bench | this / that | median | lowest | highest |", "|---|---|--:|--:|--:|"]
    for result in results():
        for name, ratio in result["ratios"].items():
            figures = " | ".join(f"{ratio[each]:.3g} x" for each in ("median", "low", "high"))
            rows.append(f"| {result['bench']} | {name} | {figures} |")
    return rows


def tables() -> str:
    """All that stands between the marks."""
    machines = sorted({result["machine"] for result in results()})
    return "\n".join(
        [
            *goals(),
            "",
            f"Measured on {'; '.join(machines)}.",
            "",
            f"<details><summary>{RATIOS}</summary>",
            "",
            *ratios(),
            "",
            "</details>",
            "",
        ]
    )


def written(readme: str) -> str:
    """The README with the figures as they are now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}{END}{after}"


def main() -> int:
    readme = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(readme != written(readme))
    README.write_text(written(readme), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
