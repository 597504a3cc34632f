"""The metrics: instruments by name, and which fact moves which.

Every label has a bound: names come from contracts, the rest is held to `DISTINCT_MAX` values.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TypeVar, cast

from opentelemetry.metrics import Histogram, Meter

from callcast.core.work import Kind, Work
from callcast.ports.observer import (
    CircuitChanged,
    ConsumerRebuilt,
    DuplicateSeen,
    Fact,
    KillSwitch,
    Lagged,
    LeaseLost,
    LoopBlocked,
    OutboxAged,
    Rejected,
    Retried,
    Settled,
)
from callcast.telemetry import names
from callcast.telemetry.spans import (
    NOWHERE,
    Attributes,
    Place,
    answered_status,
    call_labels,
    error_label,
    error_type,
    message_labels,
    served_labels,
    status_of,
)

DISTINCT_MAX = 200
"""Distinct values of one label; the ones after these are counted together as ``_OTHER``."""

_CIRCUIT = {"open": 1, "forced_open": 1, "half_open": 2}  # every other state lets calls through: 0
_SWITCH = {"open": 1, "trial": 2}

F = TypeVar("F", bound=Fact)


class Instruments:
    """All metrics of one bus on one meter."""

    def __init__(self, meter: Meter, system: str, at: Place = NOWHERE) -> None:
        self._system = system
        self._at = at
        self._seen: dict[str, set[str]] = {}  # label to its values so far; changed by _bounded
        self._took = {
            Kind.CALL: _seconds(meter, names.CALL_DURATION, "A call with all its attempts."),
            Kind.SERVE: _seconds(meter, names.HTTP_SERVER_DURATION, "Serving one call."),
            Kind.PUBLISH: _seconds(meter, names.MESSAGING_CLIENT_DURATION, "Publishing a message."),
            Kind.CONSUME: _seconds(meter, names.MESSAGING_PROCESS_DURATION, "Handling a message."),
        }
        self._attempt = _seconds(meter, names.HTTP_CLIENT_DURATION, "One attempt of a call.")
        self._active = meter.create_up_down_counter(
            names.HTTP_SERVER_ACTIVE, "{request}", "Calls that are being served."
        )
        # No gauge: the buses of a process share the meter, and only steps add up.
        self._occupied = meter.create_up_down_counter(
            names.BULKHEAD_IN_FLIGHT, "{call}", "Attempts that hold a slot of a bulkhead."
        )
        self._moved = {
            Kind.PUBLISH: meter.create_counter(
                names.MESSAGING_SENT, "{message}", "Messages published."
            ),
            Kind.CONSUME: meter.create_counter(
                names.MESSAGING_CONSUMED, "{message}", "Messages handled, well or not."
            ),
        }
        self._facts = dict(
            [
                *_call_facts(meter, self._bounded),
                *_delivery_facts(meter, self._bounded),
                *_worker_facts(meter),
            ]
        )

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        """Record how long a piece of work took, and count the message it moved."""
        labels = self._labels(work)
        moved = self._moved.get(work.kind)
        if moved is not None and (error is None or work.kind is Kind.CONSUME):
            moved.add(1, labels)
        if work.kind is Kind.SERVE:
            labels = self._with_answer(labels, work, error)
        else:
            labels = self._with_error(labels, error)
        self._took[work.kind].record(took, labels)

    def measure_attempt(self, labels: Attributes, took: float, error: BaseException | None) -> None:
        """Record how long one attempt took; `labels` are `attempt_labels` and the status."""
        self._attempt.record(took, self._with_error(labels, error))

    def active(self, work: Work, step: int) -> None:
        """One more served call is running (1), or one less (-1)."""
        self._active.add(step, served_labels(work))

    @contextmanager
    def occupied(self, work: Work) -> Generator[None]:
        """An attempt holds a slot of its callee's bulkhead."""
        labels = call_labels(work)
        self._occupied.add(1, labels)
        try:
            yield
        finally:
            self._occupied.add(-1, labels)

    def tell(self, fact: Fact) -> None:
        """Move the metrics of this fact; a fact without any moves none."""
        move = self._facts.get(type(fact))
        if move is not None:
            move(fact)

    def _labels(self, work: Work) -> Attributes:
        if work.kind is Kind.CALL:
            return call_labels(work)
        if work.kind is Kind.SERVE:
            return served_labels(work)
        return message_labels(work, self._system, self._at)

    def _with_error(self, labels: Attributes, error: BaseException | None) -> Attributes:
        if error is None:
            return labels
        labels = {**labels, names.ERROR_TYPE: self._bounded(names.ERROR_TYPE, error_type(error))}
        status = status_of(error)
        return labels if status is None else {**labels, names.HTTP_STATUS: status}

    def _with_answer(
        self, labels: Attributes, work: Work, error: BaseException | None
    ) -> Attributes:
        labels = dict(labels)
        if error is not None:
            kind = error_type(error, is_served=True)
            labels[names.ERROR_TYPE] = self._bounded(names.ERROR_TYPE, kind)
        status = answered_status(work, error)
        if status is not None:
            labels[names.HTTP_STATUS] = status
        return labels

    def _bounded(self, label: str, value: str) -> str:
        seen = self._seen.setdefault(label, set())
        if value in seen:
            return value
        if len(seen) >= DISTINCT_MAX:
            return names.OTHER
        seen.add(value)
        return value


_Bounded = Callable[[str, str], str]
_Move = Callable[[Fact], None]


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=names.SECONDS
    )


def _on(kind: type[F], move: Callable[[F], None]) -> tuple[type[Fact], _Move]:
    """A row of the table of facts: `move` is only ever handed facts of its own kind."""
    return kind, cast("_Move", move)


def _call_facts(meter: Meter, bounded: _Bounded) -> list[tuple[type[Fact], _Move]]:
    retries = meter.create_counter(names.RETRY_ATTEMPTS, "{attempt}", "Retry decisions.")
    state = meter.create_gauge(names.CIRCUIT_STATE, "1", "0 closed, 1 open, 2 half open.")
    transitions = meter.create_counter(
        names.CIRCUIT_TRANSITIONS, "{transition}", "Changes of the state of a circuit."
    )
    full = meter.create_counter(names.BULKHEAD_REJECTED, "{call}", "Calls over the bulkhead.")
    rejected = meter.create_counter(names.CALL_REJECTED, "{call}", "Calls that our side refused.")

    def retried(fact: Retried) -> None:
        labels = {names.OPERATION: fact.name, names.PEER: fact.peer, names.OUTCOME: fact.outcome}
        retries.add(1, labels)

    def changed(fact: CircuitChanged) -> None:
        peer = bounded(names.PEER, fact.peer)
        state.set(_CIRCUIT.get(fact.after, 0), {names.PEER: peer})
        transitions.add(1, {names.PEER: peer, names.CIRCUIT_STATE_NAME: fact.after})

    def refused(fact: Rejected) -> None:
        labels = {names.OPERATION: fact.name, names.PEER: fact.peer}
        if fact.by == "bulkhead":
            full.add(1, labels)
        rejected.add(1, {**labels, names.BY: fact.by})

    return [_on(Retried, retried), _on(CircuitChanged, changed), _on(Rejected, refused)]


def _delivery_facts(meter: Meter, bounded: _Bounded) -> list[tuple[type[Fact], _Move]]:
    attempts = meter.create_histogram(
        names.DELIVERY_ATTEMPTS,
        "{attempt}",
        "Attempts until the last verdict.",
        explicit_bucket_boundaries_advisory=names.ATTEMPTS,
    )
    waited = _seconds(meter, names.QUEUE_TIME, "From publish to the start of handling.")
    dead = meter.create_counter(names.DLQ_MESSAGES, "{message}", "Messages that went dead.")
    duplicates = meter.create_counter(
        names.INBOX_DUPLICATES, "{message}", "Messages whose effect was there already."
    )
    lost = meter.create_counter(names.LEASES_LOST, "{message}", "Settles that came too late.")

    def settled(fact: Settled) -> None:
        labels = source_labels(fact.source)
        waited.record(fact.queue_time, labels)
        if fact.outcome in {"done", "dead"}:
            attempts.record(fact.attempts, labels)
        if fact.outcome == "dead":
            kind = bounded(names.ERROR_TYPE, error_label(fact.error))
            dead.add(1, {**labels, names.ERROR_TYPE: kind})

    def duplicate(fact: DuplicateSeen) -> None:
        duplicates.add(1, {names.CONSUMER: fact.consumer})

    def lease_lost(fact: LeaseLost) -> None:
        lost.add(fact.count, source_labels(fact.source))

    return [_on(Settled, settled), _on(DuplicateSeen, duplicate), _on(LeaseLost, lease_lost)]


def _worker_facts(meter: Meter) -> list[tuple[type[Fact], _Move]]:
    switch = meter.create_gauge(names.KILL_SWITCH_STATE, "1", "0 closed, 1 open, 2 trial.")
    rebuilt = meter.create_counter(
        names.CONSUMER_REBUILT, "{consumer}", "Consumers that the watchdog replaced."
    )
    blocked = _seconds(meter, names.LOOP_BLOCKED, "A handler kept the event loop from running.")
    pending = meter.create_gauge(names.OUTBOX_PENDING, "{message}", "Unsent rows of the outbox.")
    age = meter.create_gauge(names.OUTBOX_AGE, "s", "Age of the oldest unsent row.")
    depth = meter.create_gauge(names.QUEUE_DEPTH, "{message}", "Ready and delayed messages.")
    lag = meter.create_gauge(names.CONSUMER_LAG, "{message}", "Messages not yet settled.")
    lag_time = meter.create_gauge(names.CONSUMER_LAG_TIME, "s", "Age of the oldest of them.")
    dead = meter.create_gauge(names.DLQ_DEPTH, "{message}", "Dead letters.")

    def lagged(fact: Lagged) -> None:
        labels = source_labels(fact.source)
        depth.set(fact.ready + fact.delayed, labels)
        lag.set(fact.ready + fact.delayed + fact.leased, labels)
        lag_time.set(fact.oldest, labels)
        dead.set(fact.dead, labels)

    def aged(fact: OutboxAged) -> None:
        pending.set(fact.pending, {names.SERVICE: fact.service})
        age.set(fact.age, {names.SERVICE: fact.service})

    def switched(fact: KillSwitch) -> None:
        switch.set(_SWITCH.get(fact.state, 0), source_labels(fact.source))

    return [
        _on(Lagged, lagged),
        _on(OutboxAged, aged),
        _on(KillSwitch, switched),
        _on(ConsumerRebuilt, lambda fact: rebuilt.add(1, source_labels(fact.source))),
        _on(LoopBlocked, lambda fact: blocked.record(fact.took, {names.HANDLER: fact.handler})),
    ]


def source_labels(source: str) -> Mapping[str, str]:
    """Topic and group of a source that is written ``topic/group``."""
    topic, _, group = source.partition("/")
    return {names.MESSAGING_DESTINATION: topic, names.MESSAGING_GROUP: group}
