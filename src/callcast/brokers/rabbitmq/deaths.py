"""What RabbitMQ itself writes onto a message that it dead-letters, written onto ours: `x-death`.

Tools and consumers of dead letters read where a message died, and why, from these headers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from pika.compat import long

ATTEMPTS = "callcast-attempts"
_REASONS = {"expired": "expired", "poison": "delivery_limit"}
"""RabbitMQ's words for two of ours; it calls anything else rejected."""


class Death(NamedTuple):
    """Where a message died: the queue, and the way by which it had come there."""

    queue: str
    exchange: str
    routing_key: str


def headers_of(death: Death, reason: str, *, attempts: int, wall: float) -> dict[str, Any]:
    """The headers of a message that died there now (`wall`, in seconds), after so many attempts."""
    word = _REASONS.get(reason, "rejected")
    place = {"exchange": death.exchange, "queue": death.queue, "reason": word}
    entry: dict[str, Any] = {
        **place,
        "count": long(attempts),  # the type by which RabbitMQ counts on
        "routing-keys": [death.routing_key],
        "time": datetime.fromtimestamp(wall, UTC),
    }
    ends = {
        f"x-{end}-death-{name}": text for end in ("first", "last") for name, text in place.items()
    }
    return {"x-death": [entry], **ends}
