"""The figures of the README, from the files that the benches wrote: ``python bench/readme.py``.

With ``--check`` it writes nothing and exits 1 when the README says something else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
BENCHES = ("embedded", "http_calls", "policies", "startup")


def table() -> str:
    """One row per goal of every bench, missed ones too: a figure is stated as it was measured."""
    rows = ["| what | measured | goal | |", "|---|--:|--:|---|"]
    for bench in BENCHES:
        result = json.loads((RESULTS / f"{bench}.json").read_text(encoding="utf-8"))
        for goal in result["goals"]:
            unit = goal["unit"] and f" {goal['unit']}"
            measured = f"{goal['measured']:.3g}{unit}"
            limit = f"{goal['relation']} {goal['limit']:g}{unit}"
            verdict = "met" if goal["met"] else "**missed**"
            rows.append(f"| {goal['name']} | {measured} | {limit} | {verdict} |")
    machines = {
        json.loads((RESULTS / f"{bench}.json").read_text(encoding="utf-8"))["machine"]
        for bench in BENCHES
    }
    return "\n".join([*rows, "", f"Measured on {'; '.join(sorted(machines))}.", ""])


def written(readme: str) -> str:
    """The README with the figures as they are now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def main() -> int:
    readme = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(readme != written(readme))
    README.write_text(written(readme), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
