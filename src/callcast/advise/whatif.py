"""The system as it would be if one interaction were made otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from msgspec.structs import replace

from callcast.advise import paths
from callcast.advise.model import Edge, Handler, Interaction, Step, System, Verb
from callcast.advise.verdicts import Numbers
from callcast.core.errors import Misuse

VERBS: Mapping[str, Verb] = MappingProxyType({verb.value: verb for verb in Verb})


def what_if(system: System, text: str) -> tuple[System, Edge]:
    """That system, and which edge was changed; `text` is ``orders->mail=cast``.

    An edge is ``caller->callee``, or ``caller->callee:name`` where there are several. Raises
    `Misuse` for what is no such text, no edge, or more than one.
    """
    which, found, verb = text.rpartition("=")
    if not found or verb not in VERBS:
        raise Misuse(
            f"what-if {text!r}: write CALLER->CALLEE=VERB, the verb one of {', '.join(VERBS)}"
        )
    edge = the_edge(system, which)
    return changed(system, edge, VERBS[verb]), edge


def the_edge(system: System, text: str) -> Edge:
    """The one edge that this names; raises `Misuse`, with what is near, for none or several."""
    matching = [
        edge for edge in system.interactions if text in {str(edge), f"{edge.caller}->{edge.callee}"}
    ]
    if len(matching) == 1:
        return matching[0]
    known = sorted({str(edge) for edge in matching or system.interactions})
    if matching:
        raise Misuse(f"{text!r} is {len(matching)} interactions: name one of {', '.join(known)}")
    near = get_close_matches(text, known, n=3, cutoff=0.4) or known[:3]
    raise Misuse(f"there is no interaction {text!r}; near it: {', '.join(near) or 'none at all'}")


def changed(system: System, edge: Edge, verb: Verb, *, has_outbox: bool | None = None) -> System:
    """The same system with that verb on one edge, and an outbox if that is said."""
    about = system.interactions[edge]
    terms = about.terms if has_outbox is None else replace(about.terms, has_outbox=has_outbox)
    about = replace(about, verb=verb, terms=terms)
    return replace(system, interactions={**system.interactions, edge: about})


def numbers(system: System, entry: Handler) -> Numbers:
    """How the answers of an entry stand."""
    tree = paths.needed(system, entry)
    return Numbers(
        availability=paths.availability(system, entry),
        p95=p95(system, entry),
        waits_for=len(paths.named(tree)) - 1,
    )


def p95(system: System, entry: Handler) -> float:
    """Its own p95 and that of what it waits for, one after the other, in seconds.

    An upper bound: that all are slow at once is rarer than one in twenty.
    """
    return _p95(system, (entry.service, entry.name), ())


def _p95(system: System, at: paths.Key, above: tuple[paths.Key, ...]) -> float:
    handler = system.handlers.get(at)
    if handler is None or at in above:
        return 0.0
    groups: dict[int, float] = {}
    for step in handler.steps:
        took = _step(system, system.interactions[step.edge], (*above, at))
        groups[step.group] = max(groups.get(step.group, 0.0), took)
    return handler.own.quantile(0.95) + sum(groups.values())


def _step(system: System, about: Interaction, above: tuple[paths.Key, ...]) -> float:
    measured = about.measured
    if about.verb in paths.WAITED_FOR:
        seen = 0.0 if measured is None else measured.latency.quantile(0.95)
        return seen or _p95(system, (about.edge.callee, about.edge.name), above)
    return 0.0  # what is published beside the database's commit adds next to nothing


def entries_over(system: System, edge: Edge) -> Sequence[Handler]:
    """The entries whose requests come by this edge, in their order."""
    return [
        entry
        for entry in paths.entries(system)
        if any(edge == step.edge for step in reached(system, entry))
    ]


def reached(system: System, entry: Handler) -> Sequence[Step]:
    """Every step below an entry, those that nobody waits for too; each once."""
    found: dict[Edge, Step] = {}
    todo = [(entry.service, entry.name)]
    while todo:
        handler = system.handlers.get(todo.pop())
        for step in () if handler is None else handler.steps:
            if step.edge not in found:
                found[step.edge] = step
                todo.append((step.edge.callee, step.edge.name))
    return list(found.values())
