"""What a handler may know about the work in hand, and how nested work inherits from it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

from msgspec import Struct

from callcast.core.message import NO_HEADERS, Message


class Context(Struct, frozen=True, eq=False):
    """The work in hand; a handler gets it by annotating a parameter with `Context`."""

    message_id: str
    """Of the message or the call, constant over redeliveries and retries: the idempotency key
    for effects outside a `Transaction`."""
    correlation_id: str
    """Shared by everything that came of one first request."""
    causation_id: str | None = None
    """The id of the message or call that caused this one."""
    source: str = ""
    service: str = ""
    name: str = ""
    """The contract's name."""
    attempt: int = 1
    """1 for the first run of this handler on this message or call, then 2, 3, ..."""
    upstream_attempt: int = 1
    """The attempt of the caller: above 1 the caller is itself retrying."""
    deadline: float | None = None
    """Monotonic seconds on the bus's clock by which the caller stops waiting; calls made from the
    handler inherit it. For a consumed message it is the handler's own ``timeout``."""
    headers: Mapping[str, str] = NO_HEADERS


def context_of(message: Message, service: str) -> Context:
    """The ids of a message, for what is told about it outside its handler."""
    return Context(
        message.id,
        message.correlation_id or message.id,
        message.causation_id,
        message.source,
        service,
        message.type,
    )


AMBIENT: ContextVar[Context | None] = ContextVar("callcast_context", default=None)
"""The context of the handler that is running; set by the innermost step of SERVE and CONSUME."""
