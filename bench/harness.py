"""What all benches share: contenders in turn, medians with their spread, goals, one result file.

Only ratios inside one run count: the machine is shared, and its speed changes from minute to
minute. So contenders run in turn (A B A B ...), each ratio is taken within a round, and the
median of the rounds is what is stated.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import operator
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

R = TypeVar("R")

RESULTS = Path(__file__).parent / "results"
_RELATIONS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Figure:
    """The rounds of one contender, or of a ratio."""

    rounds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        return min(self.rounds)

    @property
    def high(self) -> float:
        return max(self.rounds)

    @property
    def spread(self) -> float:
        """From the first to the third quartile, as a share of the median."""
        if len(self.rounds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.rounds, n=4)
        return (third - first) / self.median if self.median else 0.0

    def plain(self) -> dict[str, object]:
        return {
            "median": rounded(self.median),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "spread": rounded(self.spread),
            "rounds": [rounded(each) for each in self.rounds],
        }


@dataclass(frozen=True)
class Goal:
    """A figure and what it must be: ``Goal("policy chain", 1.4, "<=", 2.0, "us")``."""

    name: str
    measured: float
    relation: str
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return bool(_RELATIONS[self.relation](self.measured, self.limit))

    def plain(self) -> dict[str, object]:
        return {
            "name": self.name,
            "measured": rounded(self.measured),
            "relation": self.relation,
            "limit": self.limit,
            "unit": self.unit,
            "met": self.met,
        }

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        measured, limit = f"{self.measured:.3g} {self.unit}", f"{self.limit:g} {self.unit}"
        return (
            f"{verdict:>7}  {self.name}: {measured.strip()} (goal {self.relation} {limit.strip()})"
        )


@dataclass
class Report:
    """One bench: what was measured, against what, and whether that is good enough."""

    bench: str
    unit: str
    versions: Mapping[str, str]
    settings: Mapping[str, object]
    """Durability, sizes, numbers of calls: what somebody needs to measure the same again."""
    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, Figure] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def ratio(self, above: str, below: str) -> Figure:
        """How many times the figure `above` is the figure `below`, round by round."""
        pairs = zip(self.figures[above].rounds, self.figures[below].rounds, strict=True)
        figure = Figure([one / other for one, other in pairs])
        self.ratios[f"{above} / {below}"] = figure
        return figure

    def finish(self, folder: Path = RESULTS) -> int:
        """Print everything, write ``<bench>.json``; the exit code: 1 when a goal is missed."""
        print(f"{self.bench}: {machine()}")
        print("versions: " + ", ".join(f"{name} {v}" for name, v in self.versions.items()))
        width = max(map(len, [*self.figures, *self.ratios]), default=0)
        for figures, unit in ((self.figures, self.unit), (self.ratios, "x")):
            for name, figure in figures.items():
                print(
                    f"{name:<{width}}  {figure.median:>12,.4g} {unit}"
                    f"  ({figure.low:,.4g} to {figure.high:,.4g}, spread {figure.spread:.0%})"
                )
        for goal in self.goals:
            print(goal)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.plain(), indent=2, ensure_ascii=False)
        (folder / f"{self.bench}.json").write_text(text + "\n", encoding="utf-8")
        return 0 if all(goal.met for goal in self.goals) else 1

    def plain(self) -> dict[str, object]:
        return {
            "bench": self.bench,
            "machine": machine(),
            "versions": dict(self.versions),
            "settings": dict(self.settings),
            "unit": self.unit,
            "rounds": max((len(figure.rounds) for figure in self.figures.values()), default=0),
            "figures": {name: figure.plain() for name, figure in self.figures.items()},
            "ratios": {name: figure.plain() for name, figure in self.ratios.items()},
            "goals": [goal.plain() for goal in self.goals],
            "met": all(goal.met for goal in self.goals),
        }


def alternate(
    contenders: Mapping[str, Callable[[], float]], *, rounds: int, warmups: int = 1
) -> dict[str, Figure]:
    """Run the contenders in turn; each call of one is a round and returns its figure.

    The order is reversed in every second round, so that nobody always runs behind the same one.
    """
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    for name, figure in _in_turn(contenders, rounds, warmups):
        seen[name].append(figure)
    return {name: Figure(figures) for name, figures in seen.items()}


def alternate_all(
    contenders: Mapping[str, Callable[[], Mapping[str, float]]], *, rounds: int, warmups: int = 1
) -> dict[str, Figure]:
    """As `alternate`, of contenders that return several figures: ``"huey: consume"``."""
    seen: dict[str, list[float]] = {}
    for name, figures in _in_turn(contenders, rounds, warmups):
        for what, figure in figures.items():
            seen.setdefault(f"{name}: {what}", []).append(figure)
    return {name: Figure(figures) for name, figures in seen.items()}


def _in_turn(
    contenders: Mapping[str, Callable[[], R]], rounds: int, warmups: int
) -> Iterator[tuple[str, R]]:
    for number in range(-warmups, rounds):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            gc.collect()
            result = contenders[name]()
            if number >= 0:
                yield name, result


def versions(*distributions: str) -> dict[str, str]:
    """The Python and these distributions, as installed."""
    found = {name: importlib.metadata.version(name) for name in distributions}
    return {"python": platform.python_version(), **found}


def machine() -> str:
    """One line about where this ran."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux: the processor's family has to do
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = os.cpu_count() or 1
    where = f"{cores} cores, {sys.platform}, CPython {platform.python_version()}"
    return f"{names[0] if names else model}, {where}"


def peak_memory() -> float:
    """MiB of this program: what getrusage says includes the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 1024


def rounded(number: float) -> float:
    """Four digits that mean something."""
    return float(f"{number:.4g}")
