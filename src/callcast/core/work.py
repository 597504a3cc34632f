"""Work: the one shape around which all layers are written."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, TypeVar

from msgspec import Struct

from callcast.core.context import Context
from callcast.core.message import Message

R = TypeVar("R")


class Kind(enum.Enum):
    """The four places where a layer can stand."""

    CALL = "call"
    SERVE = "serve"
    PUBLISH = "publish"
    CONSUME = "consume"


# Looked up once: in CPython 3.11 an enum takes 0.1 us to give out a member.
CALL = Kind.CALL
SERVE = Kind.SERVE
PUBLISH = Kind.PUBLISH
CONSUME = Kind.CONSUME


class Work(Struct, frozen=True, eq=False):
    """One piece of work on its way through the layers.

    A layer that changes something passes on a changed copy: `proceed(replace(work, ...))`.
    """

    kind: Kind
    name: str
    """The contract's name; for a guarded function its qualified name."""
    id: str = ""
    """Of the message or call: constant over attempts."""
    contract: object = None
    """The `Operation` or `Event`; None for a guarded function."""
    peer: str = ""
    """CALL: the callee's service, the key of its breaker, bulkhead and budget; else the group."""
    value: object = None
    """The request or event; a payload (bytes, say) until the `Validate` layer decodes it."""
    message: Message | None = None
    context: Context | None = None
    """SERVE and CONSUME: what the handler may know. CALL and PUBLISH: the ambient one, or None."""
    deadline: float | None = None
    """Monotonic seconds by which all attempts together must end."""
    until: float | None = None
    """Monotonic seconds by which this attempt must end; set by `AttemptTimeout`."""
    attempt: int = 1
    round: int = 0
    """CONSUME: `Delivery.round`."""
    crashes: int = 0
    """CONSUME: `Delivery.crashes`."""
    url: str = ""
    """SERVE: ``scheme:path`` as it was asked for, without the query; empty within the process."""
    transaction: object = None
    """SERVE and CONSUME: the open `Transaction`, set by the inbox layer for the handler."""


Next: TypeAlias = Callable[[Work], Awaitable[R]]


class Layer(Protocol[R]):
    """Something around work: before, after, instead, or again."""

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do what the layer is for, and call `proceed` as often as it takes.

        Most are ``async def``; one that has nothing to do afterwards may be a plain ``def`` that
        returns what `proceed` returned, which saves a coroutine.
        """
        ...
