"""Telling a fact with the ids of the work that it is about."""

from __future__ import annotations

from callcast.core.context import AMBIENT, Context, context_of
from callcast.core.work import Work
from callcast.ports.observer import Fact, Observer


def tell_of(observer: Observer, work: Work, fact: Fact) -> None:
    """Tell the fact while the ids of the work are the ambient ones, which log lines are given.

    Outside a handler nothing else gives a call or a publish its ids.
    """
    token = AMBIENT.set(ids_of(work))
    try:
        observer.tell(fact)
    finally:
        AMBIENT.reset(token)


def ids_of(work: Work) -> Context | None:
    """The ids of this work itself: what it comes of is its cause. A function has its caller's."""
    if work.message is not None:
        return context_of(work.message, work.peer)
    context = work.context
    if not work.id:
        return context
    if context is None:
        return Context(work.id, work.id, name=work.name)
    return Context(work.id, context.correlation_id, context.message_id, name=work.name)
