"""Timeouts and retries along a path, so that each caller outlasts what it asks for (F5, F7)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from callcast.advise import paths
from callcast.advise.availability import needed_of_each
from callcast.advise.model import Edge, Handler, System

HEADROOM = 1.2
"""A limit is so many times what the callee may take: the way there and back takes time too."""
ATTEMPTS = 3
"""At the one layer that retries; more only help against what is over in a moment."""
LEAST = 0.05
"""Seconds: no limit is shorter, a busy machine would trip over it."""


class Budget(Struct, frozen=True):
    """What one call of a path should be given, beside what it has."""

    edge: Edge
    worst: float
    """Seconds that the callee may take by its own limits, and by what was seen of it."""
    attempt_timeout: float
    deadline: float
    attempts: int
    """At the bottom of a path only: retries at several layers multiply."""
    availability: float
    """What it must have for the entry to reach its objective, all dependencies alike."""
    has: tuple[float | None, float | None, int | None]
    """Its attempt timeout, deadline and attempts today."""


def budgets(system: System, entry: Handler, slo: float) -> Sequence[Budget]:
    """One for each call below an entry, from the bottom up; `slo` is a share such as 0.999."""
    found: dict[Edge, Budget] = {}
    each = needed_of_each(slo, max(1, len(paths.named(paths.needed(system, entry))) - 1))
    for chain in paths.chains(system, entry):
        for edge in reversed(chain.edges):
            if edge not in found:
                found[edge] = _budget(system, edge, availability=each, known=found)
    return list(found.values())


def _budget(
    system: System, edge: Edge, *, availability: float, known: dict[Edge, Budget]
) -> Budget:
    about = system.interactions[edge]
    terms, measured = about.terms, about.measured
    below = paths.waited_for(system, (edge.callee, edge.name))
    handler = system.handlers.get((edge.callee, edge.name))
    own = 0.0 if handler is None else handler.own.quantile(0.99)
    groups: dict[int, float] = {}
    for step in below:
        if step.edge in known:
            groups[step.group] = max(groups.get(step.group, 0.0), known[step.edge].deadline)
    worst = own + sum(groups.values())
    if measured is not None and not groups:
        worst = max(worst, measured.latency.quantile(0.99))
    timeout = max(LEAST, worst * HEADROOM)
    is_bottom = not below
    attempts = ATTEMPTS if is_bottom and terms.is_idempotent is not False else 1
    deadline = timeout * attempts + (terms.backoff_max or 0.0) * (attempts > 1)
    return Budget(
        edge=edge,
        worst=worst,
        attempt_timeout=timeout,
        deadline=deadline,
        attempts=attempts,
        availability=availability,
        has=(terms.attempt_timeout, terms.deadline, terms.attempts),
    )
