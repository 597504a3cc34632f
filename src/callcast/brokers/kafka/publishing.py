"""From messages to parcels, and from the driver's errors to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError

from callcast.brokers.kafka import wire
from callcast.brokers.kafka.codes import PURGED, UNKNOWN_PARTITION, UNKNOWN_TOPIC
from callcast.brokers.kafka.names import redrive_topic
from callcast.brokers.kafka.options import BODY_MAX
from callcast.brokers.kafka.sender import Parcel
from callcast.core.errors import NotSent, Unanswered
from callcast.core.message import Message

_NEVER = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    UNKNOWN_TOPIC,
    UNKNOWN_PARTITION,
    PURGED,
}
"""Errors after which a record is surely not stored."""

PIECE = 5
"""Keyless messages of one batch that at least go to one partition together, in their order."""


def topic_of(message: Message) -> str:
    """Where a message goes."""
    if message.group is None:
        return message.topic
    return redrive_topic(message.topic, message.group)


class Packing:
    """Makes parcels of messages, each batch anew; keyless ones take turns over the partitions."""

    def __init__(self) -> None:
        self._turn = 0

    def pack(
        self, messages: Sequence[Message], partitions: Mapping[str, int], wall: float
    ) -> tuple[list[tuple[int, Parcel]], list[NotSent | Unanswered | None]]:
        """The parcels with their places in the batch, and the errors of those that cannot go.

        What follows a refused message of its key in this batch is refused, too.
        """
        parcels: list[tuple[int, Parcel]] = []
        errors: list[NotSent | Unanswered | None] = [None] * len(messages)
        stopped: set[tuple[str, str]] = set()
        keyless = sum(message.key is None for message in messages)
        most = max(1, keyless // PIECE)
        given = 0
        for index, message in enumerate(messages):
            topic = topic_of(message)
            why, headers = _said(message, topic, partitions, wall=wall)
            key = message.key
            if stopped and not why and (topic, key) in stopped:
                why = "an earlier message of its key was refused"
            if why:
                errors[index] = NotSent(
                    f"message {message.id!r} was not sent: {why}", id=message.id
                )
                if key is not None:
                    stopped.add((topic, key))
            elif key is None:
                count = partitions[topic]
                partition = (self._turn + given * min(count, most) // keyless) % count
                given += 1
                parcels.append((index, Parcel(topic, None, message.body, headers, partition)))
            else:
                parcels.append((index, Parcel(topic, key.encode(), message.body, headers)))
        self._turn += most if keyless else 0
        return parcels, errors


def failure(message: Message, error: KafkaError, why: str = "") -> NotSent | Unanswered:
    """What became of a message that the driver gave up, and why if that is known."""
    if error.code() in _NEVER:
        return NotSent(f"message {message.id!r} was not sent: {error.str()}", id=message.id)
    reason = f"{error.str()} ({why})" if why else error.str()
    return Unanswered(f"message {message.id!r} may be stored: {reason}", id=message.id)


def _said(
    message: Message, topic: str, partitions: Mapping[str, int], *, wall: float
) -> tuple[str, wire.Headers]:
    """Why it cannot be sent, or nothing and the headers that it is sent with."""
    if len(message.body) > BODY_MAX or topic not in partitions or message.deliver_at:
        why = _why_not(message, topic, partitions, wall=wall)
        if why:
            return why, []
    try:
        if message.headers:
            # The driver would find a bad name only when it has half of the batch.
            "".join(message.headers).encode()
        return "", wire.encode(message)
    except UnicodeEncodeError as error:
        return f"{error.object!r} is no text that can be sent ({error.reason})", []


def _why_not(message: Message, topic: str, partitions: Mapping[str, int], *, wall: float) -> str:
    if len(message.body) > BODY_MAX:
        return f"its body has {len(message.body)} bytes, and at most {BODY_MAX} can be sent"
    if topic not in partitions:
        if message.group is not None:
            return f"there is no group {message.topic}/{message.group}: ensure it first"
        return f"there is no topic {topic!r}: ensure it first (or check its name)"
    if message.deliver_at is not None and message.deliver_at > wall:
        return "Kafka does not schedule; publish it when it is due, or use a broker that does"
    return ""
