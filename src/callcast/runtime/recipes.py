"""The four recipes: which layers stand around a piece of work, outermost first.

A recipe is a list that can be read and printed (`names`, `callcast explain`). What is not
configured is left out; an order that is known to be wrong is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from callcast.core.contract import Operation
from callcast.core.errors import Misuse, NotSent
from callcast.core.outcome import Outcome
from callcast.core.work import Layer, Next, Work
from callcast.policies.breaker import BreakerLayer
from callcast.policies.budget import Budget
from callcast.policies.bulkhead import BulkheadLayer
from callcast.policies.chain import chain
from callcast.policies.classify import Verdict, verdict_of
from callcast.policies.deadline import Deadline, ServedDeadline
from callcast.policies.expire import Expire
from callcast.policies.notes import Origin
from callcast.policies.observing import Measure, Trace
from callcast.policies.options import Retry
from callcast.policies.recover import Recover
from callcast.policies.recovery import Recovery
from callcast.policies.repeat import Repeat
from callcast.policies.retry import Judge, RetryLayer, repeats
from callcast.policies.silent import Silent
from callcast.policies.timeout import AttemptTimeout, Timeout
from callcast.policies.validate import Validate, ValidateRequest
from callcast.ports.observer import Observer, Records
from callcast.runtime.guards import Terms
from callcast.runtime.ports import Ports
from callcast.runtime.tasks import AsyncioGate

R = TypeVar("R")

ATTEMPT_SHARE = 0.5
"""An attempt that may be repeated gets half of the deadline, so that there is time for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consuming:
    """What the CONSUME recipe is made of."""

    recovery: Recovery
    origin: Origin
    type: str
    """Of the messages, the contract's name."""
    decode: Callable[[bytes], object]
    timeout: float = 300.0
    """Seconds for one delivery, immediate repeats included."""
    inbox: Layer[Outcome] | None = None
    identify: Layer[Outcome] | None = None
    """Finds the ids of messages that others wrote."""


def call(
    terms: Terms, operation: Operation[Any, Any] | None, ports: Ports, *, has_timer: bool
) -> list[Layer[object]]:
    """Around a transport or, without an operation, around a guarded function."""
    parts = _Calling(terms, operation, ports)
    layers: list[Layer[object] | None] = [
        *observed(ports),
        parts.deadline(),
        parts.retry(),
        parts.breaker(),
        parts.bulkhead(),
        parts.attempt_timeout(has_timer=has_timer),
    ]
    return checked(layers)


def serve(ports: Ports, inbox: Layer[object] | None = None) -> list[Layer[object]]:
    """Around a handler that is called; `inbox` keeps the answers of ``once=True`` operations."""
    layers: list[Layer[object] | None] = [
        *observed(ports),
        ServedDeadline(ports.clock),
        inbox,
        ValidateRequest(),
    ]
    return checked(layers)


def publish(
    ports: Ports, retry: Retry | None = None, *, deadline: float | None = None
) -> list[Layer[object]]:
    """Around the coalescer. A message keeps its id, so that sending it again is harmless.

    It is validated where it is encoded, before it gets here. `deadline` in seconds is for a
    message that comes without one.
    """
    options = retry or Retry()
    budget = Budget(options.budget, options.budget_ratio, lock=Lock())
    judge = Judge(options, budget, dice=ports.dice, repeats=_may_pass)
    layers: list[Layer[object] | None] = [
        *observed(ports),
        Deadline(deadline, clock=ports.clock),
        RetryLayer(judge, clock=ports.clock, observer=ports.observer),
    ]
    return checked(layers)


def consume(parts: Consuming, ports: Ports) -> list[Layer[Outcome]]:
    """Around a handler that answers `Done`; the outcome of every message comes out of it."""
    clock, recovery = ports.clock, parts.recovery
    layers: list[Layer[Outcome] | None] = [
        *observed(ports),
        Recover(recovery, parts.origin, clock=clock, dice=ports.dice),
        Expire(clock),
        parts.identify,
        Validate(parts.type, parts.decode),
        Repeat(recovery, clock=clock, timeout=parts.timeout),
        parts.inbox,
        Timeout(parts.timeout, clock=clock),
    ]
    return checked(layers)


def observed(ports: Ports) -> list[Trace | Measure]:
    """Trace and metrics, the outermost of all four; nothing where nobody ever observes."""
    if isinstance(ports.observer, Silent):
        return []
    return [Trace(ports.observer), Measure(ports.observer, ports.clock)]


def assembled(
    layers: Sequence[Layer[R]], last: Next[R], observer: Observer, *, is_noted: bool = True
) -> Next[R]:
    """The layers around `last`; while nobody traces, without those that only would.

    Asked for each piece of work: an SDK may be set up after the program has started. An observer
    that keeps a record notes the work then, unless it is told of it elsewhere (`is_noted`).
    """
    recorded = chain(layers, last)
    others = [layer for layer in layers if not isinstance(layer, Trace | Measure)]
    if len(others) == len(layers):
        return recorded
    if is_noted and isinstance(observer, Records):
        others = [
            *(each.noting(observer) for each in layers if isinstance(each, Measure)),
            *others,
        ]
    unrecorded = chain(others, last)

    def run(work: Work) -> Awaitable[R]:
        return recorded(work) if observer.is_tracing else unrecorded(work)

    return run


def names(layers: Sequence[Layer[R]]) -> list[str]:
    """One word or two for each layer, outermost first, as `callcast explain` prints them."""
    return [_name(layer) for layer in layers]


WRONG = (
    ("Retry", "Deadline", "each attempt would get a deadline of its own"),
    ("CircuitBreaker", "Retry", "attempts would not be counted, and retries would hide failures"),
    ("Bulkhead", "Retry", "a call that only waits for its retry would hold a slot"),
    ("AttemptTimeout", "Retry", "the timeout would bound all attempts together"),
    ("AttemptTimeout", "CircuitBreaker", "a timeout would be a cancellation to the breaker"),
    ("AttemptTimeout", "Bulkhead", "waiting in the queue would count as the callee's time"),
    ("Repeat", "Recover", "errors would be outcomes before they could be repeated"),
    ("Expire", "Recover", "a dead letter would have no notes"),
    ("Validate", "Recover", "undecodable bytes would end the worker"),
    ("Repeat", "Validate", "a message would be decoded for each run"),
    ("Inbox", "Repeat", "a repeat would run in a transaction that was rolled back"),
    ("Inbox", "Recover", "a failed handler would be committed as handled"),
    ("Timeout", "Repeat", "the first run's timeout would end all its repeats"),
    ("Timeout", "Inbox", "a commit would be cancelled half-way"),
)
"""Pairs of which the first must not stand outside the second, and why."""


def checked(layers: Sequence[Layer[R] | None]) -> list[Layer[R]]:
    """The layers that are there, or `Misuse` for an order that is known to be wrong."""
    there = [layer for layer in layers if layer is not None]
    kinds = [_kind(layer) for layer in there]
    for outer, inner, why in WRONG:
        if outer in kinds and inner in kinds and kinds.index(outer) < kinds.index(inner):
            raise Misuse(f"{outer} must not stand outside {inner}: {why}")
    return there


def _may_pass(error: Exception) -> bool:
    """Whether a publish may succeed later: not where the broker refused this very message."""
    is_refusal = isinstance(error, NotSent) and error.__cause__ is None
    return not is_refusal and verdict_of(error) is Verdict.FAILED


class _Calling:
    """The layers of one CALL recipe."""

    def __init__(self, terms: Terms, operation: Operation[Any, Any] | None, ports: Ports) -> None:
        self._terms = terms
        self._operation = operation
        self._ports = ports
        self._guards = terms.guards("" if operation is None else operation.service)
        self._circuit = self._guards.circuit("" if operation is None else operation.name)
        self._whole = terms.deadline or (None if operation is None else operation.deadline)
        self._is_idempotent = terms.idempotent or (
            operation is not None and operation.is_repeatable
        )

    def deadline(self) -> Layer[object]:
        cap = None if self._operation is None else self._terms.deadline
        return Deadline(self._whole, clock=self._ports.clock, cap=cap)

    def retry(self) -> Layer[object] | None:
        options, budget, circuit = self._terms.retry, self._guards.budget, self._circuit
        if options is None or budget is None:
            return None
        judge = Judge(
            options,
            budget,
            dice=self._ports.dice,
            repeats=repeats(is_idempotent=self._is_idempotent, on=self._terms.retry_on),
            circuit_wait=None if circuit is None else circuit.retry_in,
        )
        return RetryLayer(judge, clock=self._ports.clock, observer=self._ports.observer)

    def breaker(self) -> Layer[object] | None:
        options = self._terms.breaker
        if self._circuit is None or options is None:
            return None
        half = None if self._whole is None else self._whole * ATTEMPT_SHARE
        return BreakerLayer(
            self._circuit,
            clock=self._ports.clock,
            observer=self._ports.observer,
            slow_call=options.slow_call or self._terms.attempt_timeout or half,
        )

    def bulkhead(self) -> Layer[object] | None:
        if self._guards.slots is None:
            return None
        return BulkheadLayer(
            self._guards.slots,
            clock=self._ports.clock,
            observer=self._ports.observer,
            gate=AsyncioGate,
        )

    def attempt_timeout(self, *, has_timer: bool) -> Layer[object]:
        limit, share = self._terms.attempt_timeout, 0.0
        may_repeat = self._is_idempotent or self._terms.retry_on is not None
        if limit is None and self._terms.retry is not None and may_repeat and self._whole:
            # Where no answer means no retry, a shorter attempt would only fail sooner.
            limit, share = self._whole * ATTEMPT_SHARE, ATTEMPT_SHARE
        return AttemptTimeout(limit, clock=self._ports.clock, has_timer=has_timer, share=share)


def _kind(layer: Layer[R]) -> str:
    kind = type(layer).__name__.removesuffix("Layer")
    return "CircuitBreaker" if kind == "Breaker" else kind


def _name(layer: Layer[R]) -> str:
    has_own = type(layer).__repr__ is not object.__repr__
    return repr(layer) if has_own else _kind(layer)
