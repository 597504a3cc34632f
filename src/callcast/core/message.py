"""A message: the attributes of CloudEvents 1.0 and the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Message(Struct, frozen=True, gc=False):
    """One fact or command on its way, immutable.

    `source` and `id` together are unique for ever: they are the key by which duplicates are known.
    Times are seconds since the epoch (wall clock), because they outlive the process.
    """

    id: str
    source: str
    type: str
    """The contract's name; the handler is found by it."""
    topic: str
    """Where it goes: the contract's name, with ``.v2`` and so on for later versions."""
    body: bytes
    key: str | None = None
    """Messages of one key keep their order (CloudEvents ``partitionkey``)."""
    group: str | None = None
    """When set, only this group gets it: a redrive or a replay to one group."""
    time: float = 0.0
    subject: str | None = None
    datacontenttype: str = "application/json"
    dataschema: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    expires: float | None = None
    """After this wall-clock time it is ``Dead("expired")`` instead of handled; None is never."""
    deliver_at: float | None = None
    """Not before this wall-clock time; None is at once."""
    headers: Mapping[str, str] = NO_HEADERS
    unheard: bool = False
    """Publishing it is no error though no group has ever subscribed; not sent on the wire."""


def is_same(one: Message, other: Message) -> bool:
    """Whether these are copies of one message. An id that was used for another one is no copy."""
    return (one.source, one.id, one.type, one.body) == (
        other.source,
        other.id,
        other.type,
        other.body,
    )
