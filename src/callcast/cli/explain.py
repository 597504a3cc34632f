"""``callcast explain``: which layers stand around a piece of work, and what becomes of failures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click
from msgspec import Struct

from callcast.cli.failure import Failure
from callcast.cli.loading import load
from callcast.cli.output import emit, output_option
from callcast.core.contract import Event, Operation
from callcast.core.work import Next, Work
from callcast.policies.notes import Origin
from callcast.policies.recovery import Recovery
from callcast.runtime import recipes
from callcast.runtime.bus import Bus
from callcast.runtime.handlers import wants_transaction
from callcast.runtime.policy import Policy
from callcast.runtime.service import TIMEOUT, Handler, Service
from callcast.runtime.settings import Settings, read_table, settings_of
from callcast.runtime.system import system_ports

R = TypeVar("R")


_ANY = Operation("any.operation", str, str, idempotent=True)
"""For the recipe of calls when no operation is named."""


class Explained(Struct, frozen=True):
    """One recipe: whose, of which kind, its layers outermost first."""

    name: str
    kind: str
    layers: Sequence[str]
    recovery: Recovery | None = None


@click.command(
    epilog="""\b
Examples:
  callcast explain consume
  callcast explain shop.fulfilment:service
  callcast explain shop.contracts:CHECKOUT -o json

NAME is call, serve, publish or consume for the defaults of this folder, else the MODULE:NAME of
a Service, Bus, Operation, Event, Policy or Recovery.
"""
)
@click.argument("name")
@output_option
def explain(name: str, form: str) -> None:
    """Say which layers stand around a call, a cast or a handler, and when failures are repeated."""
    settings = settings_of(read_table(Path.cwd()))
    explainer = Explainer(settings)
    found = explainer.default(name) if name in KINDS else list(explainer.explain(load(name), name))
    if form != "table":
        emit([_record(each) for each in found], form, ())
        return
    for each in found:
        click.echo(f"{each.kind} {each.name}")
        for layer in each.layers:
            click.echo(f"  {layer}")
        if each.recovery is not None:
            click.echo("  " + each.recovery.preview().replace("\n", "\n  "))


class Explainer:
    """Builds recipes as a bus would, and reads their names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ports = system_ports("memory://")

    def default(self, kind: str) -> Sequence[Explained]:
        """The recipe of a kind of work, with the settings of this folder."""
        return [KINDS[kind](self, "(defaults)")]

    @functools.singledispatchmethod
    def explain(self, found: object, name: str) -> Iterator[Explained]:
        """All recipes that a thing is about."""
        raise Failure(
            f"{name} is of type {type(found).__name__}: explained are Service, Bus, Operation,"
            " Event, Policy and Recovery"
        )

    @explain.register
    def _(self, found: Service, name: str) -> Iterator[Explained]:
        del name
        for handler in found.handlers:
            yield from self.handler(handler)

    @explain.register
    def _(self, found: Bus, name: str) -> Iterator[Explained]:
        inside = Explainer(found.settings)
        for service in found.services:
            yield from inside.explain(service, name)

    @explain.register(Operation)
    def _(self, found: Operation[Any, Any], name: str) -> Iterator[Explained]:
        del name
        yield self.call(found.name, found)
        if found.idempotent or found.once:
            yield self.publish(found.name)

    @explain.register(Event)
    def _(self, found: Event[Any], name: str) -> Iterator[Explained]:
        del name
        yield self.publish(found.name)

    @explain.register
    def _(self, found: Policy, name: str) -> Iterator[Explained]:
        layers = recipes.call(found, None, self._ports, has_timer=False)
        yield Explained(name, "CALL", recipes.names(layers))

    @explain.register
    def _(self, found: Recovery, name: str) -> Iterator[Explained]:
        yield Explained(name, "RECOVERY", (), found)

    def handler(self, handler: Handler) -> Iterator[Explained]:
        """What stands around a handler that is called, and around one that consumes."""
        contract = handler.contract
        if isinstance(contract, Operation):
            yield self.serve(f"{contract.name} in {handler.where}", handler)
            if not contract.idempotent and not contract.once:
                return
        yield self.consume(f"{contract.name} in {handler.where}", handler)

    def call(self, name: str, operation: Operation[Any, Any] | None = None) -> Explained:
        """Around a call to a peer: that operation, or any that may be repeated."""
        policy = self._settings.policy
        layers = recipes.call(policy, operation or _ANY, self._ports, has_timer=True)
        return Explained(name, "CALL", recipes.names(layers))

    def serve(self, name: str, handler: Handler | None = None) -> Explained:
        """Around a handler that is called."""
        layers = recipes.serve(self._ports, _inbox(handler))
        return Explained(name, "SERVE", recipes.names(layers))

    def publish(self, name: str) -> Explained:
        """Around a publish or cast."""
        layers = recipes.publish(self._ports, deadline=self._settings.publish_deadline)
        return Explained(name, "PUBLISH", recipes.names(layers))

    def consume(self, name: str, handler: Handler | None = None) -> Explained:
        """Around a handler that consumes, and when its failures are tried again."""
        recovery = (handler and handler.recovery) or self._settings.recovery
        parts = recipes.Consuming(
            recovery=recovery,
            origin=Origin(source="", group="", handler=name, host="", version=""),
            type=name,
            decode=bytes,
            timeout=TIMEOUT if handler is None else handler.timeout,
            inbox=_inbox(handler),
        )
        layers = recipes.names(recipes.consume(parts, self._ports))
        return Explained(name, "CONSUME", layers, recovery)


KINDS: Mapping[str, Callable[[Explainer, str], Explained]] = MappingProxyType(
    {
        "call": Explainer.call,
        "serve": Explainer.serve,
        "publish": Explainer.publish,
        "consume": Explainer.consume,
    }
)


class Inbox:
    """Stands for the inbox layer, which needs an open database."""

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Go on: only its name and place are of interest here."""
        return await proceed(work)


def _inbox(handler: Handler | None) -> Inbox | None:
    return Inbox() if handler is not None and wants_transaction(handler) else None


def _record(each: Explained) -> dict[str, object]:
    recovery = each.recovery
    return {
        "name": each.name,
        "kind": each.kind,
        "layers": list(each.layers),
        "recovery": None if recovery is None else recovery.preview().splitlines(),
        "attempts": None if recovery is None else recovery.attempts_max,
    }
