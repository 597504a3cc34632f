"""The ledger: each verdict, and each loss of one, told as a fact."""

from __future__ import annotations

from collections.abc import Sequence

from callcast.core.context import AMBIENT, context_of
from callcast.core.contract import Event, Operation
from callcast.core.outcome import Dead, Done, Later, Outcome
from callcast.ports.broker import Delivery
from callcast.ports.observer import Handling, LeaseLost, Records, Settled
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription

# Narrowing by the generic classes would leave their types unknown.
_CONTRACTS: tuple[type[object], ...] = (Operation, Event)
NAMED_MAX = 10
"""Messages that one fact names: a lost lease can concern hundreds."""


class Ledger:
    """Tells the observer what became of deliveries."""

    def __init__(self, subscription: Subscription, ports: Ports) -> None:
        self._source = str(subscription.source)
        self._service = subscription.service
        self._clock = ports.clock
        self._observer = ports.observer
        self.handling: Handling | None = None
        """Told each verdict, where a record is kept: of the program's own messages."""
        if isinstance(ports.observer, Records) and isinstance(subscription.contract, _CONTRACTS):
            self.handling = ports.observer.handling(
                subscription.source.group, subscription.contract
            )

    def enter(self, delivery: Delivery, outcome: Outcome, *, ran: float) -> None:
        """Tell one verdict, after a handling of `ran` seconds."""
        waited = max(0.0, self._clock.wall() - ran - delivery.message.time)
        word = type(outcome).__name__.lower()
        attempts, error = delivery.round + 1, ""
        if isinstance(outcome, (Later, Dead)):
            attempts = int(outcome.notes.get("callcast-attempts", attempts))
            error = outcome.notes.get("callcast-error-type", outcome.reason)
        elif not isinstance(outcome, Done):
            error = outcome.reason
        token = AMBIENT.set(context_of(delivery.message, self._service))
        try:
            self._observer.tell(Settled(self._source, word, attempts, waited, error))
        finally:
            AMBIENT.reset(token)

    def lost(self, deliveries: Sequence[Delivery]) -> None:
        """Tell that the verdicts on these came too late."""
        messages = [delivery.message for delivery in deliveries[:NAMED_MAX]]
        fact = LeaseLost(
            self._source,
            len(deliveries),
            tuple(each.id for each in messages),
            tuple(each.correlation_id or each.id for each in messages),
            tuple(each.causation_id or "" for each in messages),
        )
        # One message has the fields of every other log line, too.
        is_one = len(deliveries) == 1
        token = AMBIENT.set(context_of(messages[0], self._service) if is_one else None)
        try:
            self._observer.tell(fact)
        finally:
            AMBIENT.reset(token)
