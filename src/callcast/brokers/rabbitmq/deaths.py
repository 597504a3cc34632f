"""What RabbitMQ itself writes onto a message that it dead-letters: `x-death`.

It is written onto ours, because tools and consumers of dead letters read where a message died, and
why, from these headers. And it is read, from letters that RabbitMQ or somebody else has put among
ours:

| ours                                                 | theirs                                   |
|------------------------------------------------------|------------------------------------------|
| ``callcast-source``                                  | the queue in which it died first         |
| ``callcast-dead-reason``                             | why it died there                        |
| ``callcast-attempts``                                | how often it died there                  |
| ``callcast-first-failed-at``, ``-last-failed-at``    | the first and the last time of all deaths|
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeGuard

from pika.compat import long

from callcast.brokers.rabbitmq.wire import stamp, text_of
from callcast.core.outcome import DEAD_REASON

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


def told(headers: Mapping[str, Any]) -> Mapping[str, str]:
    """What RabbitMQ says about a death, in our words; nothing where it says nothing."""
    entries = headers.get("x-death")
    deaths: list[Mapping[str, Any]] = []
    if _is_list(entries):
        deaths = [each for each in entries if _is_table(each)]
    if not deaths:
        return {}
    queue = headers.get("x-first-death-queue", deaths[-1].get("queue", ""))
    here = [each for each in deaths if each.get("queue") == queue]
    first = deaths[-1] if not here else here[-1]  # the latest stands first
    counts = [each.get("count") for each in here]
    said = {
        "callcast-source": text_of(queue),
        DEAD_REASON: text_of(headers.get("x-first-death-reason", first.get("reason", ""))),
        ATTEMPTS: str(sum(int(count) for count in counts if isinstance(count, int))),
    }
    times = [stamp(one.timestamp()) for each in deaths if _is_time(one := each.get("time"))]
    if times:
        said |= {"callcast-first-failed-at": min(times), "callcast-last-failed-at": max(times)}
    return said


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_table(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_time(value: object) -> TypeGuard[datetime]:
    return isinstance(value, datetime)
