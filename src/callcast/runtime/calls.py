"""Calls: which peer, which guards, which transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from callcast.core.context import AMBIENT
from callcast.core.contract import Operation
from callcast.core.errors import Misuse
from callcast.core.work import CALL, Next, Work
from callcast.ports.transport import Transport
from callcast.runtime.peers import Peer
from callcast.runtime.ports import Ports


class Route(Struct, frozen=True):
    """What does not change from call to call of one operation."""

    operation: object  # held, so that the id() it is found by stays its own
    run: Next[object]
    deadline: float


class Calls:
    """The client side of one bus: one transport and one set of guards per peer."""

    def __init__(
        self,
        ports: Ports,
        *,
        peers: Mapping[str, Peer],
        connect: Callable[[str, Peer | None], Transport],
        guard: Callable[[Operation[Any, Any], Peer | None, Transport], Next[object]],
        is_local: Callable[[str], bool],
    ) -> None:
        self._ports = ports
        self._peers = peers
        self._connect = connect
        self._guard = guard
        self._is_local = is_local
        self._routes: dict[int, Route] = {}  # by id() of the operation
        self._transports: dict[str, Transport] = {}  # by peer; closed by close()

    async def call(
        self,
        operation: Operation[Any, Any],
        request: object,
        deadline: float | None,
        *,
        call_id: str,
    ) -> object:
        """Call an operation; `deadline` in seconds replaces the operation's own."""
        route = self._routes.get(id(operation)) or self._route(operation)
        ports = self._ports
        work = Work(
            CALL,
            operation.name,
            call_id or ports.new_id(),
            operation,
            operation.service,
            request,
            context=AMBIENT.get(),
            deadline=ports.clock.now() + (route.deadline if deadline is None else deadline),
        )
        return await route.run(work)

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        while self._transports:
            _, transport = self._transports.popitem()
            await transport.close()

    def _route(self, operation: Operation[Any, Any]) -> Route:
        service = operation.service
        peer = self._peers.get(service)
        is_local = self._is_local(operation.name)
        if peer is None and not is_local:
            known = ", ".join(sorted(self._peers)) or "none"
            variable = f"CALLCAST_PEER_{service.upper().replace('-', '_')}"
            raise Misuse(
                f"operation {operation.name!r}: where is service {service!r}? Say"
                f" Bus(peers={{{service!r}: 'http://...'}}) or set {variable}"
                f" (known peers: {known})"
            )
        transport = self._transports.get(service)
        if transport is None:
            transport = self._transports[service] = self._connect(
                service, None if is_local else peer
            )
        transport.prepare(operation)
        route = Route(operation, self._guard(operation, peer, transport), operation.deadline)
        self._routes[id(operation)] = route
        return route
