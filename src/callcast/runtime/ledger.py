"""The ledger: each verdict told as a fact."""

from __future__ import annotations

from callcast.core.context import AMBIENT, context_of
from callcast.core.outcome import Dead, Done, Later, Outcome
from callcast.ports.broker import Delivery
from callcast.ports.observer import Settled
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription


class Ledger:
    """Tells the observer what became of deliveries; what went well, if it wants to hear that."""

    def __init__(self, subscription: Subscription, ports: Ports) -> None:
        self._source = str(subscription.source)
        self._service = subscription.service
        self._clock = ports.clock
        self._observer = ports.observer

    def enter(self, delivery: Delivery, outcome: Outcome, *, ran: float) -> None:
        """Tell one verdict, after a handling of `ran` seconds."""
        observer = self._observer
        if isinstance(outcome, Done) and not observer.hears_success:
            return
        tell = observer.tell
        waited = max(0.0, self._clock.wall() - ran - delivery.message.time)
        if isinstance(outcome, Done):
            tell(Settled(self._source, "done", delivery.round + 1, waited))
            return
        word = type(outcome).__name__.lower()
        attempts, error = delivery.round + 1, outcome.reason
        if isinstance(outcome, (Later, Dead)):
            attempts = int(outcome.notes.get("callcast-attempts", attempts))
            error = outcome.notes.get("callcast-error-type", error)
        # Not for Done, which is every message: it is logged for debugging only.
        token = AMBIENT.set(context_of(delivery.message, self._service))
        try:
            tell(Settled(self._source, word, attempts, waited, error))
        finally:
            AMBIENT.reset(token)
