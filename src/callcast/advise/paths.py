"""What a request needs: everything below an entry that its answer waits for.

A step is hard when its caller waits for it (CALL, REQUEST). A message (CAST, PUBLISH) needs the
broker at most, and nothing at all with an outbox. What several ways lead to is one dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from msgspec import Struct

from callcast.advise.availability import soft, with_fallback
from callcast.advise.load import Wait, attempts_at_worst, worst_case
from callcast.advise.model import Edge, Handler, Interaction, Step, System, Terms, Verb

BROKER = "broker"
"""Stands among the services for whatever carries the messages."""
SHARED_MAX = 10
"""Shared dependencies that are told apart exactly, in 2^n cases; those beyond count apart."""
DEPTH_MAX = 32
"""Calls below each other that are followed."""
WAITED_FOR = frozenset({Verb.CALL, Verb.REQUEST})

Key = tuple[str, str]
"""Service, and what it handles."""


class Chain(Struct, frozen=True):
    """Calls that wait for each other, from an entry down."""

    entry: Key
    edges: tuple[Edge, ...]

    def __str__(self) -> str:
        """Services and operations, in a line."""
        return " -> ".join([self.entry[0], *(edge.callee for edge in self.edges)])


def entries(system: System) -> Sequence[Handler]:
    """Where requests come in: what is said to be one, else what nobody in the system calls."""
    said = [handler for handler in system.handlers.values() if handler.is_entry]
    if said:
        return said
    called = {(edge.callee, edge.name) for edge in system.interactions}
    return [handler for key, handler in system.handlers.items() if key not in called]


def chains(system: System, entry: Handler) -> Iterator[Chain]:
    """Every chain of calls from here down; one that closes a cycle ends there."""
    yield from _down(system, Chain((entry.service, entry.name), ()))


def _down(system: System, so_far: Chain) -> Iterator[Chain]:
    way = [so_far.entry, *((edge.callee, edge.name) for edge in so_far.edges)]
    below = [step.edge for step in waited_for(system, way[-1])]
    is_closed = way[-1] in way[:-1]
    if so_far.edges and (is_closed or not below or len(way) > DEPTH_MAX):
        yield so_far
        return
    for edge in below:
        yield from _down(system, Chain(so_far.entry, (*so_far.edges, edge)))


def waited_for(system: System, at: Key) -> Sequence[Step]:
    """The steps of a handler whose answer it waits for."""
    handler = system.handlers.get(at)
    steps = () if handler is None else handler.steps
    return [step for step in steps if _verb(system, step.edge) in WAITED_FOR]


def cycles(system: System) -> Sequence[tuple[str, ...]]:
    """Services that wait for each other in a ring; each ring once, from its first name on."""
    calls: dict[str, set[str]] = {}
    for edge, interaction in system.interactions.items():
        if interaction.verb in WAITED_FOR:
            calls.setdefault(edge.caller, set()).add(edge.callee)
    return [ring for start in sorted(calls) for ring in _rings(calls, (start,))]


def _rings(calls: Mapping[str, set[str]], way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for following in sorted(calls.get(way[-1], ())):
        if following == way[0]:
            yield way
        # Only names above the first: each ring is found from its least name alone.
        elif following > way[0] and following not in way and len(way) < DEPTH_MAX:
            yield from _rings(calls, (*way, following))


def own_availability(system: System, service: str) -> float | None:
    """A service's own share of good answers; None where nothing was seen of it.

    What its handlers are said to have, else what its callers saw of it.
    """
    said = [
        handler.availability
        for handler in system.handlers.values()
        if handler.service == service and handler.availability is not None
    ]
    if said:
        return min(said)
    seen = errors = 0
    for edge, interaction in system.interactions.items():
        measured = interaction.measured
        if edge.callee == service and measured is not None and interaction.verb in WAITED_FOR:
            seen += measured.count
            errors += measured.errors
    return 1.0 - errors / seen if seen else None


class Below(Struct, frozen=True):
    """One thing that a handler waits for: a service with what it waits for in its turn."""

    service: str
    share: float = 1.0
    """In which share of the requests."""
    fallback: float = 0.0
    """Share of its failures that a fallback makes good."""
    below: tuple[Below, ...] = ()


def needed(system: System, entry: Handler) -> Below:
    """The tree of what an answer of this entry waits for."""
    return _needed(system, (entry.service, entry.name), ())


def _needed(system: System, at: Key, above: tuple[Key, ...]) -> Below:
    handler = system.handlers.get(at)
    below: list[Below] = []
    for step in () if handler is None else handler.steps:
        verb = _verb(system, step.edge)
        key = (step.edge.callee, step.edge.name)
        if verb is not Verb.CALL and not _has_outbox(system, step.edge):
            below.append(Below(BROKER, step.share))
        if verb in WAITED_FOR and key not in {*above, at} and len(above) < DEPTH_MAX:
            under = _needed(system, key, (*above, at))
            fallback = 1.0 if _terms_of(system, step.edge).has_fallback else 0.0
            below.append(Below(under.service, step.share, fallback, under.below))
    return Below(at[0], below=tuple(below))


def availability(system: System, entry: Handler) -> float:
    """F1 to F4 over the whole tree; what is not known counts as always there.

    Exact for independent failures: what is shared is told apart case by case.
    """
    tree = needed(system, entry)
    names = sorted(named(tree))
    own = {name: availability_of(system, name) for name in names}
    uses = _uses(tree)
    shared = [name for name in names if uses[name] > 1 and own[name] < 1.0][:SHARED_MAX]
    whole = 0.0
    for states in product((True, False), repeat=len(shared)):
        chance = 1.0
        case = dict(own)
        for name, is_up in zip(shared, states, strict=True):
            chance *= own[name] if is_up else 1.0 - own[name]
            case[name] = 1.0 if is_up else 0.0
        whole += chance * _up(tree, case)
    return whole


def availability_of(system: System, name: str) -> float:
    """Of a service or the broker; 1 where nothing is known of it."""
    known = system.broker_availability if name == BROKER else own_availability(system, name)
    return 1.0 if known is None else known


def _up(tree: Below, own: Mapping[str, float]) -> float:
    up = own[tree.service]
    for each in tree.below:
        up *= soft(with_fallback(_up(each, own), each.fallback), each.share)
    return up


def named(tree: Below) -> set[str]:
    """All names in it, its own too."""
    return {tree.service}.union(*(named(each) for each in tree.below))


def _uses(tree: Below) -> dict[str, int]:
    uses = {tree.service: 1}
    for each in tree.below:
        for name, count in _uses(each).items():
            uses[name] = uses.get(name, 0) + count
    return uses


def attempts_of(system: System, chain: Chain) -> int:
    """F6: how often the last of a chain may be asked for one request at its top."""
    return attempts_at_worst(attempts for _, attempts in _layers(system, chain))


def layers_with_retries(system: System, chain: Chain) -> Sequence[Edge]:
    """The edges of a chain that are tried more than once for one request at its top."""
    return [edge for edge, attempts in _layers(system, chain) if attempts > 1]


def _layers(system: System, chain: Chain) -> Iterator[tuple[Edge, int]]:
    """Each edge with its attempts; what gives way to a retrying caller above has one."""
    is_retried = False
    for edge in chain.edges:
        about = system.interactions[edge]
        attempts = about.terms.attempts or 1
        if is_retried and about.terms.gives_way:
            attempts = 1
        seen = about.measured
        if seen is not None and seen.count and attempts == 1:
            attempts = -(-seen.attempts // seen.count)  # nobody says so, but it was done
        is_retried = is_retried or attempts > 1
        yield edge, max(1, attempts)


def worst_time(system: System, at: Key, above: tuple[Key, ...] = ()) -> float:
    """F7: the longest that a handler may take, in seconds, by the limits of what it calls.

    A call without any limit takes what its callee may take; what was seen of its own time is p99.
    """
    handler = system.handlers.get(at)
    if handler is None or at in above:
        return 0.0
    groups: dict[int, list[Wait]] = {}
    for step in waited_for(system, at):
        groups.setdefault(step.group, []).append(_wait(system, step.edge, (*above, at)))
    return worst_case(handler.own.quantile(0.99), groups.values())


def _wait(system: System, edge: Edge, above: tuple[Key, ...]) -> Wait:
    terms = _terms_of(system, edge)
    attempt = terms.attempt_timeout or terms.deadline
    if attempt is None:
        attempt = worst_time(system, (edge.callee, edge.name), above)
    wait = Wait(attempt, terms.attempts or 1, terms.backoff_max or 0.0)
    if terms.deadline is not None and wait.worst > terms.deadline:
        return Wait(terms.deadline)  # the deadline ends all attempts
    return wait


def _verb(system: System, edge: Edge) -> Verb:
    return system.interactions[edge].verb


def _has_outbox(system: System, edge: Edge) -> bool:
    return bool(_terms_of(system, edge).has_outbox)


def _terms_of(system: System, edge: Edge) -> Terms:
    return system.interactions[edge].terms


def interactions_of(system: System, chain: Chain) -> Sequence[Interaction]:
    """All of a chain, from the top down."""
    return [system.interactions[edge] for edge in chain.edges]
