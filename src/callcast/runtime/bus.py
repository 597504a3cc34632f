"""The bus: the one object through which a program calls, casts and publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from typing_extensions import Unpack

from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.message import NO_HEADERS
from callcast.core.names import checked_name
from callcast.ports.broker import Broker
from callcast.ports.clock import Clock
from callcast.ports.transport import Asgi, Dispatcher
from callcast.runtime import registry
from callcast.runtime.engine import Engine, Plan
from callcast.runtime.envelope import Sending
from callcast.runtime.idling import until_idle
from callcast.runtime.peers import Peer
from callcast.runtime.ports import Ports
from callcast.runtime.recording import recording
from callcast.runtime.replies import answer_by
from callcast.runtime.service import Service
from callcast.runtime.settings import (
    BROKER_DEFAULT,
    Settings,
    Table,
    program_name,
    read_table,
    settings_of,
)
from callcast.runtime.system import system_ports
from callcast.runtime.tracing import target_of
from callcast.runtime.transaction import AMBIENT_TRANSACTION, Transaction

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")


class Bus:
    """Calls, casts and publishes, and runs the services it is given.

    `url` names the broker (``sqlite:///orders.db``, ``memory://``) or is a `Broker`; left out, it
    comes from ``CALLCAST_BROKER``, then ``[tool.callcast]`` of ``pyproject.toml`` or
    ``callcast.toml`` in the working folder, then ``memory://``. `name` is the source of what it
    sends and defaults to the only service's name, else the program's. `peers` says where other
    services are: a URL or a `Peer` each; a service given in `services` is called directly.

    Enter it (``async with bus``) before use; leaving it drains: no new work, finish what runs,
    settle it, send what waits, close. A bus is entered once and belongs to one event loop.
    """

    def __init__(
        self,
        url: str | Broker | None = None,
        *,
        name: str | None = None,
        services: Sequence[Service] = (),
        peers: Mapping[str, str | Peer] | None = None,
        settings: Settings | None = None,
        ports: Ports | None = None,
    ) -> None:
        table = read_table(Path.cwd())
        self.name: str = name or table.name or _default_name(services)
        self.services: tuple[Service, ...] = tuple(services)
        self.settings: Settings = settings or settings_of(table)
        broker = url or table.broker or BROKER_DEFAULT
        ports = ports or recording(system_ports(broker), broker, service=self.name, table=table)
        self._clock = ports.clock
        self._traces = target_of(table.traces)
        self._engine = Engine(
            self,
            Plan(
                name=checked_name(self.name, "bus"),
                broker=broker,
                services=self.services,
                peers=_peers(table, peers or {}),
                settings=self.settings,
                ports=ports,
            ),
        )

    def __repr__(self) -> str:
        return f"Bus(name={self.name!r}, services={[each.name for each in self.services]})"

    async def __aenter__(self) -> Self:
        if self._traces is not None and not registry.trace_to(self._traces, self.name):
            self._traces = None  # the variables are of others: callcast has no SDK to go by them
        await self._engine.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._engine.stop()
        finally:
            if self._traces is not None:
                await asyncio.to_thread(registry.flush_traces)

    async def call(
        self, operation: Operation[Q, A], request: Q, *, deadline: float | None = None, id: str = ""
    ) -> A:
        """Ask and wait for the answer.

        `deadline` is seconds and defaults to the operation's; what is left of the caller's own
        deadline bounds it. Retried as the peer's policy says, only when repeating is harmless.
        Raises `NotSent` (nothing happened), `Unanswered` (it may have), `Remote` (they said no).
        """
        _refuse_in_transaction(f"call {operation.name!r}", "call first, then write")
        # The transport decodes the answer as A.
        return cast("A", await self._engine.calls.call(operation, request, deadline, call_id=id))

    async def cast(
        self,
        operation: Operation[Q, A],
        request: Q,
        *,
        id: str = "",
        now: bool = False,
        reply_to: Event[A] | None = None,
        **sending: Unpack[Sending],
    ) -> str:
        """Have it done without waiting; returns the message's id once the message is durable.

        One worker of the service gets it, also when that service has never run yet. `reply_to`
        names the event that carries the result. Beside a `Transaction` it is `Misuse` without
        `now=True`: it would leave despite a rollback. Raises `NotSent` or `Unanswered`, each with
        the id to repeat it under.
        """
        if not now:
            _refuse_beside_transaction("cast", operation.name)
        engine = self._engine
        own = NO_HEADERS if reply_to is None else answer_by(operation, reply_to)
        message = engine.envelopes.command(operation, request, id, sending=sending, own=own)
        await engine.send(operation, message)
        return message.id

    async def publish(
        self,
        event: Event[T],
        value: T,
        *,
        id: str = "",
        now: bool = False,
        **sending: Unpack[Sending],
    ) -> str:
        """Say that something was so; returns the message's id once the message is durable.

        Every group that subscribed gets it, one worker in each. When no group ever has, that is
        `NotSent` (most often the name is misspelt) unless the event says ``unheard=True``. Beside
        a `Transaction` it is `Misuse` without `now=True`. Raises `NotSent` or `Unanswered`, each
        with the id to repeat it under.
        """
        if not now:
            _refuse_beside_transaction("publish", event.name)
        engine = self._engine
        message = engine.envelopes.event(event, value, id, sending=sending)
        await engine.send(event, message)
        return message.id

    async def request(
        self,
        operation: Operation[Q, A],
        request: Q,
        *,
        deadline: float = 30.0,
        id: str = "",
        **sending: Unpack[Sending],
    ) -> A:
        """Cast and wait for the answer that comes back over the broker: for slow answers.

        Raises `Remote` when the handler refused or its message is dead, `Unanswered` when no
        answer came within `deadline` seconds (the request stays queued), and what `cast` raises.
        """
        _refuse_in_transaction(f"request {operation.name!r}", "request first, then write")
        engine = self._engine
        own = engine.running.inquiries.headers
        message = engine.envelopes.command(operation, request, id, sending=sending, own=own)
        return cast("A", await engine.running.request(operation, message, deadline))

    def transaction(
        self, service: Service | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        """A transaction outside a handler: business rows and outbox rows commit together.

        `service` says whose database, where the bus hosts several with one.
        """
        return self._engine.transaction(service)

    async def idle(self, timeout: float = 30.0) -> None:
        """Wait until nothing is ready or running and the outboxes of this bus are empty.

        Delayed and dead messages do not count. Past `timeout` seconds it raises `TimeoutError`
        naming what remains.
        """
        await self.idle_on(self._clock, timeout)

    async def idle_on(self, clock: Clock, timeout: float) -> None:
        """As `idle`, waiting on a clock of one's own."""
        await until_idle(self._engine.running, clock, timeout)

    def asgi(self) -> Asgi:
        """An ASGI application that serves the operations of this bus over HTTP.

        Mount it in an app whose lifespan enters ``async with bus``; until then it answers 503.
        """
        return self._engine.asgi()

    @property
    def dispatcher(self) -> Dispatcher:
        """What serves: for transports of your own."""
        return self._engine.desk


def _default_name(services: Sequence[Service]) -> str:
    return services[0].name if len(services) == 1 else program_name()


def _peers(table: Table, given: Mapping[str, str | Peer]) -> Mapping[str, Peer]:
    peers: dict[str, str | Peer] = {**table.peers, **given}
    return {name: peer if isinstance(peer, Peer) else Peer(peer) for name, peer in peers.items()}


def _refuse_beside_transaction(verb: str, name: str) -> None:
    """Beside a Transaction, sent or not: it would leave despite a rollback."""
    if AMBIENT_TRANSACTION.get() is not None:
        raise Misuse(
            f"{verb} {name!r} beside a Transaction: it would leave despite a rollback;"
            f" use tx.{verb}, or say now=True"
        )


def _refuse_in_transaction(what: str, remedy: str) -> None:
    """While the transaction is open its lock is held, and a call may take long."""
    transaction = AMBIENT_TRANSACTION.get()
    if transaction is not None and transaction.is_open:
        raise Misuse(f"{what} while a Transaction is open: every other write waits; {remedy}")
