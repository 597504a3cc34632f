"""Small systems for tests of the adviser."""

from __future__ import annotations

import itertools

from callcast.advise.model import Edge, Handler, Interaction, Measured, Step, System, Terms, Verb
from callcast.core.histogram import Histogram
from callcast.core.needs import Needs


def seen(count: int, errors: int = 0, *, took: float = 0.01, window: float = 100.0) -> Measured:
    """So many calls that took equally long."""
    return Measured(
        count=count, errors=errors, window=window, latency=of(took, count), attempts=count
    )


def of(seconds: float, count: int = 1) -> Histogram:
    histogram = Histogram()
    histogram.record(seconds, count)
    return histogram


def edge(text: str) -> Edge:
    """``orders->mail`` or ``orders->mail:mail.send``."""
    between, _, name = text.partition(":")
    caller, _, callee = between.partition("->")
    return Edge(caller, callee, name or f"{callee}.ask")


def says(
    text: str,
    verb: Verb = Verb.CALL,
    *,
    needs: Needs | None = None,
    terms: Terms | None = None,
    measured: Measured | None = None,
) -> Interaction:
    return Interaction(
        edge=edge(text),
        verb=verb,
        needs=needs or Needs(),
        terms=terms or Terms(),
        measured=measured,
    )


def system_of(
    *interactions: Interaction,
    available: dict[str, float] | None = None,
    shares: dict[str, float] | None = None,
    broker: float | None = None,
) -> System:
    """What these interactions make of it; each caller handles what it is asked under one name."""
    own = available or {}
    names = {each.edge.callee: each.edge.name for each in interactions}
    services = sorted({*names, *(each.edge.caller for each in interactions), *own})
    handlers = {}
    for service in services:
        name = names.get(service, f"{service}.ask")
        mine = [each.edge for each in interactions if each.edge.caller == service]
        steps = [
            Step(each, number, (shares or {}).get(f"{each.caller}->{each.callee}", 1.0))
            for number, each in enumerate(mine)
        ]
        handlers[service, name] = Handler(
            service=service, name=name, steps=tuple(steps), availability=own.get(service)
        )
    return System(
        interactions={each.edge: each for each in interactions},
        handlers=handlers,
        broker_availability=broker,
    )


def line_of(*services: str) -> list[Interaction]:
    """Each calls the next."""
    return [says(f"{a}->{b}") for a, b in itertools.pairwise(services)]
