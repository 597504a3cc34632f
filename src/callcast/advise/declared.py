"""What code says: needs and terms of interactions, from contracts and the handlers of services."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import asdict, replace

from callcast.advise.model import Interaction, System, Terms, Verb
from callcast.core.contract import Event, Operation
from callcast.core.needs import Needs
from callcast.policies.options import Retry
from callcast.policies.recovery import Recovery
from callcast.runtime.handlers import wants_transaction
from callcast.runtime.service import Handler, Service
from callcast.runtime.settings import Settings

Contract = Operation[Any, Any] | Event[Any]


class Said(Struct, frozen=True, kw_only=True):
    """What is declared of one contract, whoever uses it."""

    needs: Needs
    terms: Terms
    at: str = ""
    """Where its handler stands, ``file:line``."""
    is_event: bool = False
    takes_transaction: bool = False
    """Whether its handler writes in a transaction: what it sends meanwhile belongs to it."""


def declared(
    contracts: Iterable[Contract], services: Iterable[Service], settings: Settings
) -> Mapping[str, Said]:
    """By the contract's name on the wire; those of handlers are found by themselves."""
    handlers = [handler for service in services for handler in service.handlers]
    found = {each.topic: _said(each, settings) for each in contracts}
    for handler in handlers:
        said = found.get(handler.contract.topic) or _said(handler.contract, settings)
        found[handler.contract.topic] = replace(
            said,
            terms=_handled(said.terms, handler),
            at=_place(handler),
            takes_transaction=said.takes_transaction or wants_transaction(handler),
        )
    return found


def joined(system: System, said: Mapping[str, Said]) -> System:
    """The same system, each interaction with what is declared of it; measurements stay.

    What was measured of the terms (an outbox that was seen) is not unsaid by a declaration.
    """
    interactions = {
        edge: _told(about, said[edge.name]) if edge.name in said else about
        for edge, about in system.interactions.items()
    }
    for handler in system.handlers.values():
        own = said.get(handler.name)
        for step in handler.steps if own is not None and own.takes_transaction else ():
            about = interactions[step.edge]
            terms = replace(about.terms, in_transaction=True)
            interactions[step.edge] = replace(about, terms=terms)
    return replace(system, interactions=interactions)


def _told(about: Interaction, own: Said) -> Interaction:
    is_fact = own.is_event and about.verb is Verb.CAST
    return replace(
        about,
        verb=Verb.PUBLISH if is_fact else about.verb,
        needs=own.needs,
        terms=over(own.terms, about.terms),
        at=about.at or own.at,
    )


def over(terms: Terms, more: Terms) -> Terms:
    """The first with everything that the second knows."""
    known = {name: value for name, value in asdict(more).items() if value is not None}
    known["is_saga_step"] = terms.is_saga_step or more.is_saga_step
    return replace(terms, **known)


def _said(contract: Contract, settings: Settings) -> Said:
    if isinstance(contract, Event):
        return Said(needs=_event_needs(contract), terms=_event_terms(contract), is_event=True)
    return Said(needs=_operation_needs(contract), terms=_operation_terms(contract, settings))


def _event_needs(event: Event[Any]) -> Needs:
    """A fact has no answer, and who listens is not the publisher's to know."""
    needs = event.needs or Needs()
    return dataclasses.replace(
        needs, response=needs.response or "none", coupling=needs.coupling or "unknown"
    )


def _operation_needs(operation: Operation[Any, Any]) -> Needs:
    """Without a value in its response there is none to be needed; within, its deadline counts."""
    needs = operation.needs or Needs()
    is_void = cast("object", operation.response) in {None, type(None)}
    return dataclasses.replace(
        needs,
        response=needs.response or ("ack" if is_void else "value"),
        needed_within=needs.needed_within or operation.deadline,
    )


def _operation_terms(operation: Operation[Any, Any], settings: Settings) -> Terms:
    policy = settings.policy
    retry = policy.retry or Retry(attempts=1)
    attempts = retry.attempts if operation.is_repeatable else 1
    limit = policy.attempt_timeout
    half = operation.deadline / 2 if operation.is_repeatable else operation.deadline
    return Terms(
        deadline=operation.deadline,
        attempt_timeout=half if limit is None else min(limit, operation.deadline),
        attempts=attempts,
        backoff_max=sum(min(retry.cap, retry.base * 2**n) for n in range(attempts - 1)),
        retry_budget=retry.budget_ratio,
        gives_way=True,
        is_idempotent=operation.is_repeatable,
    )


def _event_terms(event: Event[Any]) -> Terms:
    return Terms(is_keyed=event.key is not None)


def _handled(terms: Terms, handler: Handler) -> Terms:
    """What its handler adds: how long a delivery is tried again, and whether twice is harmless."""
    recovery = handler.recovery or Recovery()
    is_safe = wants_transaction(handler) or terms.is_idempotent
    return replace(
        terms,
        retry_horizon=sum(recovery.delays),
        has_dead_letters=True,
        is_idempotent=bool(is_safe),
    )


def _place(handler: Handler) -> str:
    _, _, place = handler.where.partition("(")
    return place.rstrip(")")
