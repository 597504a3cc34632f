"""Fails when less is covered than the gates ask: 100 % of the pure floors, 95 % of all.

Reads the data that `coverage combine` left; lines and branches count alike.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

from coverage import Coverage

PURE = ("core", "ports", "policies", "stores", "advise")
PURE_PERCENT = 100.0
ALL_PERCENT = 95.0
ROOT = Path("src/callcast")


class Covered(NamedTuple):
    """How much of something ran."""

    ran: int
    there: int

    @property
    def percent(self) -> float:
        """What has nothing to run is covered."""
        return 100.0 if self.there == 0 else 100.0 * self.ran / self.there


def main() -> int:
    """Print each gate and whether it holds; 1 when one does not."""
    files = measured()
    if not files:
        print("no coverage data: run 'coverage run -m pytest' and 'coverage combine' first")
        return 1
    findings = list(misses(files))
    total = summed(files.values())
    print(f"{total.percent:.2f} % of all is covered; the gate is {ALL_PERCENT} %")
    if total.percent < ALL_PERCENT:
        findings.append(f"all: {total.percent:.2f} %")
    for finding in findings:
        print(f"below its gate: {finding}")
    return 1 if findings else 0


def measured() -> Mapping[Path, Mapping[str, object]]:
    """What coverage has measured of each file of the package."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        coverage = Coverage()
        coverage.load()
        coverage.json_report(outfile=str(report))
        found = json.loads(report.read_text())["files"]
    return {Path(name): entry for name, entry in found.items() if Path(name).is_relative_to(ROOT)}


def misses(files: Mapping[Path, Mapping[str, object]]) -> Iterator[str]:
    """One line for each file of a pure floor that is not covered wholly."""
    for path, entry in sorted(files.items()):
        floor = path.relative_to(ROOT).parts[0]
        percent = covered(entry).percent
        if floor in PURE and percent < PURE_PERCENT:
            lines, branches = entry["missing_lines"], entry.get("missing_branches", [])
            yield f"{path}: {percent:.1f} %, lines {lines}, branches {branches}"


def covered(entry: Mapping[str, object]) -> Covered:
    """Lines and branches of one file."""
    summary = cast("Mapping[str, int]", entry["summary"])
    ran = summary["covered_lines"] + summary.get("covered_branches", 0)
    return Covered(ran, summary["num_statements"] + summary.get("num_branches", 0))


def summed(entries: Iterable[Mapping[str, object]]) -> Covered:
    """Lines and branches of all files."""
    parts = [covered(entry) for entry in entries]
    return Covered(sum(p.ran for p in parts), sum(p.there for p in parts))


if __name__ == "__main__":
    sys.exit(main())
