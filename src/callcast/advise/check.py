"""The availability of each path, once by the formulas and once by playing it through.

A Monte Carlo simulation of the same system: each request throws dice for every service and for
every step that happens now and then. It knows no formula, so that it can find a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from callcast.advise import paths
from callcast.advise.confidence import Interval, wilson
from callcast.advise.model import Handler, System

REQUESTS = 20_000
Z = 3.29
"""Of a thousand simulations of a right formula, one is outside."""


class Checked(Struct, frozen=True):
    """One entry."""

    entry: paths.Key
    model: float
    simulated: float
    interval: Interval

    @property
    def agrees(self) -> bool:
        """Whether the model lies in the interval of the simulation."""
        return self.interval.low <= self.model <= self.interval.high


def check(system: System, dice: Callable[[], float], requests: int = REQUESTS) -> Sequence[Checked]:
    """Both numbers for every entry; `dice` gives numbers from 0 to 1, seeded to repeat a run."""
    return [_checked(system, entry, dice, requests=requests) for entry in paths.entries(system)]


def _checked(
    system: System, entry: Handler, dice: Callable[[], float], *, requests: int
) -> Checked:
    tree = paths.needed(system, entry)
    own = {name: paths.availability_of(system, name) for name in sorted(paths.named(tree))}
    good = 0
    for _ in range(requests):
        up = {name: dice() < share for name, share in own.items()}
        good += _answers(tree, up, dice)
    return Checked(
        (entry.service, entry.name),
        paths.availability(system, entry),
        good / requests,
        wilson(good, requests, Z),
    )


def _answers(tree: paths.Below, up: Mapping[str, bool], dice: Callable[[], float]) -> bool:
    if not up[tree.service]:
        return False
    for each in tree.below:
        is_asked = each.share >= 1.0 or dice() < each.share
        if is_asked and not _answers(each, up, dice) and not dice() < each.fallback:
            return False
    return True
