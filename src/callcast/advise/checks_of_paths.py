"""Findings about paths: A01 to A04, A06 and A15. What is not known finds nothing."""

from __future__ import annotations

from collections.abc import Iterator

from callcast.advise import paths
from callcast.advise.findings import Finding, Scope
from callcast.advise.model import Handler, Interaction, System, Verb
from callcast.advise.rules import THIN

ATTEMPTS_MAX = 10
"""Of the last of a chain for one request (A03)."""


def _availability(scope: Scope) -> Iterator[Finding]:
    slo = scope.slo / 100.0
    for entry in paths.entries(scope.system):
        found = paths.availability(scope.system, entry)
        if found < slo and not _is_thin_below(scope.system, entry):
            yield Finding(
                "A01",
                f"{entry.service}:{entry.name}",
                f"{found:.3%} of its requests can be answered; the objective is {slo:.3%}",
                "make fewer things hard: cast what nobody waits for, give a fallback to the rest",
                severity="error",
            )


def _is_thin_below(system: System, entry: Handler) -> bool:
    edges = {edge for chain in paths.chains(system, entry) for edge in chain.edges}
    counts = [_count(system.interactions[edge]) for edge in edges]
    return min(counts, default=0) < THIN


def _count(about: Interaction) -> int:
    return 0 if about.measured is None else about.measured.count


def _inversions(scope: Scope) -> Iterator[Finding]:
    for edge, about in scope.system.interactions.items():
        limit = about.terms.attempt_timeout or about.terms.deadline
        if about.verb is not Verb.CALL or limit is None:
            continue
        below = paths.worst_time(scope.system, (edge.callee, edge.name))
        if below > limit:
            yield Finding(
                "A02",
                str(edge),
                f"{edge.caller} gives up after {limit:.3g} s, and what {edge.callee} calls in its"
                f" turn may take {below:.3g} s: work goes on that nobody waits for",
                f"give this call more than {below:.3g} s, or what is below it less",
                about.at,
                "error",
            )


def _chains(scope: Scope) -> Iterator[paths.Chain]:
    for entry in paths.entries(scope.system):
        yield from paths.chains(scope.system, entry)


def _attempts(scope: Scope) -> Iterator[Finding]:
    for chain in _chains(scope):
        attempts = paths.attempts_of(scope.system, chain)
        layers = paths.layers_with_retries(scope.system, chain)
        if attempts > ATTEMPTS_MAX:
            yield Finding(
                "A03",
                str(chain),
                f"one request may ask {chain.edges[-1].callee} {attempts} times: a small failure"
                " becomes a storm",
                "retry at one layer of the path, with a budget",
                severity="error",
            )
        if len(layers) > 1:
            yield Finding(
                "A04",
                str(chain),
                f"{len(layers)} layers of this path retry: {', '.join(map(str, layers))}",
                "retry where the failure is, and nowhere above it",
            )


def _cycles(scope: Scope) -> Iterator[Finding]:
    for ring in paths.cycles(scope.system):
        yield Finding(
            "A15",
            " -> ".join([*ring, ring[0]]),
            "these services wait for each other: each is up only when all are, and under load each"
            " waits for slots that the others hold",
            "let one of these calls be a message, or move what both need to where it is needed",
            severity="error",
        )


def _told_one_by_one(scope: Scope) -> Iterator[Finding]:
    for handler in scope.system.handlers.values():
        told = [
            step.edge
            for step in handler.steps
            if scope.system.interactions[step.edge].verb is Verb.CALL
            and scope.system.interactions[step.edge].needs.response == "none"
            and scope.system.interactions[step.edge].needs.consistency != "strong"
        ]
        to = sorted({edge.callee for edge in told})
        if len(to) > 1:
            yield Finding(
                "A06",
                f"{handler.service}:{handler.name}",
                f"{handler.service} tells {len(to)} services one by one ({', '.join(to)}), and"
                " waits for each",
                "publish one event; whoever cares subscribes, and a new one changes nothing here",
                severity="error",
            )


CHECKS = (_availability, _inversions, _attempts, _cycles, _told_one_by_one)
