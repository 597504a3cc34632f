"""All checks: every one is a function from what is known to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from callcast.advise import checks_of_edges, checks_of_paths
from callcast.advise.findings import Finding, Scope

CHECKS: Sequence[Callable[[Scope], Iterator[Finding]]] = (
    *checks_of_paths.CHECKS,
    *checks_of_edges.CHECKS,
)


def findings(scope: Scope) -> Sequence[Finding]:
    """What they find, by code and edge, each once."""
    return sorted({found for check in CHECKS for found in check(scope)})
