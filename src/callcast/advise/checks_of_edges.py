"""Findings about single interactions: A05, A07 to A14, A16 to A20."""

from __future__ import annotations

from collections.abc import Iterator

from callcast.advise.findings import Finding, Scope
from callcast.advise.load import utilisation
from callcast.advise.model import Edge, Interaction, Verb
from callcast.advise.rules import FULL, THIN

MANY = 5
"""Calls to one callee for one request (A16)."""
FAST = 0.1
"""Seconds: an answer that is there so soon needs no queue (A14)."""


def _unused(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.CALL):
        is_used = None if about.measured is None else about.measured.is_result_used
        if about.needs.response == "none" or is_used is False:
            yield Finding(
                "A05",
                str(edge),
                f"{edge.caller} waits for an answer of {edge.callee} that nobody uses",
                "cast it: the same operation, `await tx.cast(...)` in place of `bus.call(...)`",
                about.at,
            )


def _dual_writes(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.CAST, Verb.PUBLISH):
        if about.terms.in_transaction and about.terms.has_outbox is False:
            yield Finding(
                "A07",
                str(edge),
                f"{edge.caller} sends {edge.name} beside its database transaction: a crash between"
                " the two leaves one without the other",
                "`await tx.publish(...)`: the outbox commits with the rows",
                about.at,
                "error",
            )


def _unsafe_retries(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.CALL):
        if (about.terms.attempts or 1) > 1 and about.terms.is_idempotent is False:
            yield Finding(
                "A08",
                str(edge),
                f"it is tried {about.terms.attempts} times and is not idempotent: a lost answer"
                " makes its effect happen twice",
                "once=True with a Transaction, or idempotent=True if it is",
                about.at,
                "error",
            )


def _endless(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.CALL):
        terms = about.terms
        is_told = any(value is not None for value in (terms.attempts, terms.is_idempotent))
        if is_told and terms.deadline is None and terms.attempt_timeout is None:
            yield Finding(
                "A09",
                str(edge),
                "it has no timeout: a callee that hangs takes its callers along",
                "deadline= on its operation",
                about.at,
                "error",
            )


def _subscriptions(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.CAST, Verb.PUBLISH):
        terms = about.terms
        if terms.has_dead_letters is False:
            yield Finding(
                "A10",
                str(edge),
                "a message that cannot be handled is tried for ever, or is lost",
                "a recovery with an end, and dead letters",
                about.at,
                "error",
            )
        if terms.retry_horizon is not None and terms.retry_horizon < scope.repair_time:
            yield Finding(
                "A11",
                str(edge),
                f"a message is dead after {terms.retry_horizon:.0f} s of failures, and mending is"
                f" taken to need {scope.repair_time:.0f} s: an outage fills the dead letters",
                "longer delays in its recovery, or redrive after each outage",
                about.at,
                "note",
            )
        if terms.retention is not None and terms.retention < scope.repair_time:
            yield Finding(
                "A13",
                str(edge),
                f"the broker keeps it for {terms.retention:.0f} s, and an outage is taken to last"
                f" {scope.repair_time:.0f} s: what comes meanwhile is lost",
                "keep it longer than the longest outage",
                about.at,
                "error",
            )
        if terms.dead_letters_watched is False:
            yield Finding(
                "A19",
                str(edge),
                "nobody is told when its dead letters grow",
                "`callcast alerts`, and somebody whose they are",
                about.at,
            )


def _overload(scope: Scope) -> Iterator[Finding]:
    for edge, about in scope.system.interactions.items():
        seen, workers = about.measured, about.terms.workers
        if seen is None or workers is None or not seen.work.count:
            continue
        used = utilisation(max(seen.peak_rate, seen.rate), seen.work.mean, workers)
        if used > FULL:
            yield Finding(
                "A12",
                str(edge),
                f"{workers} workers are busy {used:.0%} of the time at its peak: waits grow without"
                " end"
                if used >= 1
                else f"{workers} workers are busy {used:.0%} of the time",
                f"at least {-(-used * workers // FULL):.0f} workers",
                about.at,
            )


def _over_engineered(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.REQUEST):
        seen = about.measured
        if seen is not None and seen.work.count and seen.work.quantile(0.99) <= FAST:
            yield Finding(
                "A14",
                str(edge),
                f"an answer that takes {seen.work.quantile(0.99) * 1e3:.3g} ms (p99) goes over two"
                " queues",
                "call it: `await bus.call(...)`",
                about.at,
            )


def _chatty(scope: Scope) -> Iterator[Finding]:
    for edge, about in _of(scope, Verb.CALL):
        seen = about.measured
        if seen is not None and seen.traces and seen.count / seen.traces >= MANY:
            yield Finding(
                "A16",
                str(edge),
                f"{seen.count / seen.traces:.1f} calls for one request (at most"
                f" {seen.calls_per_trace_max})",
                "ask for all at once: one operation that takes a list",
                about.at,
            )


def _order(scope: Scope) -> Iterator[Finding]:
    for edge, about in scope.system.interactions.items():
        if about.needs.ordering in {"per_key", "total"} and about.terms.is_keyed is False:
            yield Finding(
                "A17",
                str(edge),
                f"its order matters ({about.needs.ordering}), and nothing keeps it",
                "key= on its event: one key is handled one at a time, in order",
                about.at,
                "error",
            )


def _sagas(scope: Scope) -> Iterator[Finding]:
    for edge, about in scope.system.interactions.items():
        if about.terms.is_saga_step and about.terms.has_undo is False:
            yield Finding(
                "A18",
                str(edge),
                "a step of a saga that nothing undoes",
                "undo= on the step, or pivot=True where there is no way back",
                about.at,
                "error",
            )


def _thin(scope: Scope) -> Iterator[Finding]:
    for edge, about in scope.system.interactions.items():
        if _count(about) < THIN:
            yield Finding(
                "A20",
                str(edge),
                f"seen {_count(about)} times: too seldom to say anything by numbers",
                f"let it run until it was seen {THIN} times at least",
                about.at,
                "note",
            )


def _of(scope: Scope, *verbs: Verb) -> Iterator[tuple[Edge, Interaction]]:
    for edge, about in scope.system.interactions.items():
        if about.verb in verbs:
            yield edge, about


def _count(about: Interaction) -> int:
    return 0 if about.measured is None else about.measured.count


CHECKS = (
    _unused,
    _dual_writes,
    _unsafe_retries,
    _endless,
    _subscriptions,
    _overload,
    _over_engineered,
    _chatty,
    _order,
    _sagas,
    _thin,
)
