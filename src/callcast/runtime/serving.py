"""Serving calls: the dispatcher that transports hand their requests to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from callcast.core.context import Context
from callcast.core.contract import Operation
from callcast.core.errors import Remote, Unavailable
from callcast.core.work import SERVE, Next, Work
from callcast.ports.transport import Arrival
from callcast.runtime.ports import Ports


class Served(Struct, frozen=True):
    """An operation and the compiled SERVE chain around its handler."""

    operation: Operation[Any, Any]
    service: str
    run: Next[object]


class Desk:
    """What a bus serves; implements `ports.transport.Dispatcher`."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._served: dict[str, Served] = {}  # by operation name; filled before the bus is ready
        self._under_way = 0
        self.is_open = False
        """Whether the bus is entered; calls between its own services are served to the end."""
        self.is_ready = False
        """Whether new requests from outside are welcome: false from the start of the drain on."""
        self.is_alive = True

    @property
    def under_way(self) -> int:
        """Calls being served right now."""
        return self._under_way

    def add(self, served: Served) -> None:
        """Serve one more operation."""
        self._served[served.operation.name] = served

    def hosts(self, name: str) -> bool:
        """Whether an operation of this name is served here."""
        return name in self._served

    def operations(self) -> Sequence[Operation[Any, Any]]:
        """All operations served here."""
        return [served.operation for served in self._served.values()]

    async def serve(self, operation: Operation[Any, Any], arrival: Arrival) -> object:
        """Run the SERVE chain around one request; the handler's result.

        Raises `Unavailable` while the bus is not open, `Remote` 404 for an operation that is not
        served here, and what the layers and the handler raise.
        """
        if not self.is_open:
            raise Unavailable("this bus is closed, or its program has not entered it yet")
        served = self._served.get(operation.name)
        if served is None:
            raise Remote(f"operation {operation.name!r} is not served here", status=404)
        self._under_way += 1
        try:
            return await served.run(self._work(served, arrival))
        finally:
            self._under_way -= 1

    async def drain(self, until: float) -> None:
        """Wait until no call is being served any more, at most until then (monotonic)."""
        clock = self._ports.clock
        while self._under_way and clock.now() < until:
            await clock.sleep(0.02)

    def _work(self, served: Served, arrival: Arrival) -> Work:
        ports, operation = self._ports, served.operation
        key = arrival.idempotency_key
        id_ = key or ports.new_id()
        limit = operation.deadline
        if arrival.timeout is not None and arrival.timeout < limit:
            limit = arrival.timeout
        deadline = ports.clock.now() + limit
        context = Context(
            id_,
            arrival.correlation_id or id_,
            arrival.causation_id,
            source="call",
            service=served.service,
            name=operation.name,
            upstream_attempt=arrival.attempt,
            deadline=deadline,
            headers=arrival.headers,
        )
        return Work(
            SERVE,
            operation.name,
            id_,
            operation,
            peer=served.service,
            value=arrival.payload,
            context=context,
            deadline=deadline,
            attempt=arrival.attempt,
            url=arrival.url,
        )
