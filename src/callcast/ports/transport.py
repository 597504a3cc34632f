"""The transport seam: how a call reaches another service, and how it is served there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from callcast.core.contract import Operation
from callcast.core.message import NO_HEADERS
from callcast.core.work import Work

Asgi: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]
"""An ASGI application, as Starlette, FastAPI and uvicorn take it."""


class Transport(Protocol):
    """Carries calls to one peer."""

    @property
    def has_timer(self) -> bool:
        """Whether it bounds an attempt by `Work.until` itself, so that no timer is armed for it."""
        ...

    def prepare(self, operation: Operation[Any, Any]) -> object:
        """Compile what does not change from call to call; `Misuse` for what cannot be bound."""
        ...

    async def send(self, work: Work) -> object:
        """Make one attempt and return the decoded response.

        Raises `NotSent` when surely nothing reached the peer, `Unanswered` when it may have,
        `Remote` for an answer that is an error. Sends the remaining time, the attempt, trace and
        correlation headers, and the id as `Idempotency-Key` for a ``once=True`` operation.
        """
        ...

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        ...


class Arrival(Struct, frozen=True):
    """What came with a request, by the transport's own words."""

    payload: Callable[[], object]
    """Decodes and validates the request; called once, by the `Validate` layer inside the chain.
    Raises `WrongRequest` naming the field."""
    timeout: float | None = None
    """Seconds the caller still waits; None when it did not say."""
    attempt: int = 1
    """The caller's attempt (``callcast-attempt``)."""
    idempotency_key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    headers: Mapping[str, str] = NO_HEADERS
    """All headers, lower-case names."""
    url: str = ""
    """``scheme:path`` as it was asked for, percent-encoded, without the query."""


class Dispatcher(Protocol):
    """What a server hands its requests to: the bus behind it."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes new requests: started, not draining (`/readyz`)."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether its parts run (`/livez`)."""
        ...

    def operations(self) -> Sequence[Operation[Any, Any]]:
        """All operations served here."""
        ...

    async def serve(self, operation: Operation[Any, Any], arrival: Arrival) -> object:
        """Run the SERVE chain; the handler's result.

        Raises `WrongRequest` (400), `Refused` (its status), `Expired`, `Unavailable` and whatever
        the handler raised (500).
        """
        ...
