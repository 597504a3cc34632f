"""What runs behind a bus, and the order in which it starts and stops.

| start                                  | stop                                                  |
|----------------------------------------|-------------------------------------------------------|
| broker, coalescer, calls               | not ready: servers say 503                            |
| hosts: database, lifespan, handlers    | workers finish and settle; served calls end           |
| topics and sources exist               | relays send what the last handlers left               |
| relays, workers                        | lifespans are left, databases close                   |
| ready                                  | coalescer flushes; connections, broker, threads close |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.work import Next
from callcast.ports.broker import Broker, Retires
from callcast.ports.codec import Codec
from callcast.ports.observer import Records
from callcast.ports.session import Database
from callcast.ports.transport import Asgi, Transport
from callcast.runtime import recipes, registry
from callcast.runtime.calls import Calls
from callcast.runtime.coalescer import Coalescer
from callcast.runtime.envelope import Envelopes
from callcast.runtime.host import Host
from callcast.runtime.house import House
from callcast.runtime.leases import Leases
from callcast.runtime.peers import Peer
from callcast.runtime.ports import Ports
from callcast.runtime.replies import Inquiries, retire_abandoned
from callcast.runtime.sending import Sender, unsent_on_failure
from callcast.runtime.service import Service, refuse_twins
from callcast.runtime.serving import Desk
from callcast.runtime.settings import Settings
from callcast.runtime.subscription import Subscription
from callcast.runtime.tasks import AsyncioTasks
from callcast.runtime.transaction import Transaction
from callcast.runtime.worker import Worker

_log = logging.getLogger("callcast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a bus was made with."""

    name: str
    broker: str | Broker
    services: Sequence[Service]
    peers: Mapping[str, Peer]
    settings: Settings
    ports: Ports


class Engine:
    """Starts once, stops once; between them the verbs of the bus go through here."""

    def __init__(self, bus: object, plan: Plan) -> None:
        self._bus = bus
        self._plan = plan
        self._ports = plan.ports
        self.codec: Codec = registry.json_codec()
        self.envelopes: Envelopes = Envelopes(self.codec, plan.name, plan.ports)
        self.desk: Desk = Desk(plan.ports)
        self.calls: Calls = Calls(
            plan.ports,
            peers=plan.peers,
            connect=self._connect,
            guard=self._guard,
            is_local=self.desk.hosts,
        )
        self._running: Running | None = None
        self._was_started = False

    @property
    def running(self) -> Running:
        """The parts that exist between start and stop; `Misuse` outside."""
        if self._running is None:
            raise Misuse(
                f"bus {self._plan.name!r} is not open: use it inside 'async with bus', in the"
                " event loop that entered it"
            )
        return self._running

    async def start(self) -> None:
        """Open everything; what was opened is closed again when something fails."""
        if self._was_started:
            raise Misuse(
                f"bus {self._plan.name!r} was entered before: make a new Bus for a second run"
            )
        self._was_started = True
        self._check_peers()
        running = self._running = Running(self, self._plan)
        if isinstance(self._ports.observer, Records):
            self._ports.observer.start()
        self.desk.is_open = True
        try:
            await running.open(self._bus)
        except BaseException:
            await self.stop()
            raise
        self.desk.is_ready = True

    def _check_peers(self) -> None:
        """Find TLS files that cannot be used now, not at the first call."""
        for service, peer in self._plan.peers.items():
            if peer.tls is None:
                continue
            registry.check_tls(service, peer.tls)
            if peer.tls.insecure:
                _log.warning(
                    "peer %r: insecure=True believes any certificate, so that everybody on the way"
                    " can read and change the calls; give Tls(ca=) instead",
                    service,
                )

    async def stop(self) -> None:
        """Drain and close, within the drain time and a little. Idempotent."""
        self.desk.is_ready = False
        running, self._running = self._running, None
        if running is None:
            return
        try:
            await running.close()
        finally:
            self.desk.is_open = False
            await self.calls.close()
            if isinstance(self._ports.observer, Records):
                await self._ports.observer.stop()
        if running.fatal is not None:
            raise running.fatal

    def send(
        self, contract: Event[Any] | Operation[Any, Any], message: Message
    ) -> Awaitable[object]:
        """Send a message of this contract, durably, within the publish deadline."""
        sender = self.running.sender
        if sender.knows(contract):
            return sender.send(message, contract=contract)
        return sender.first(contract, message)

    def transaction(self, service: Service | None) -> AbstractAsyncContextManager[Transaction]:
        """A transaction on the database of a hosted service."""
        hosts = [host for host in self.running.hosts if host.units is not None]
        if service is not None:
            hosts = [host for host in hosts if host.service is service]
        if len(hosts) != 1 or hosts[0].units is None:
            names = ", ".join(host.service.name for host in hosts) or "none"
            raise Misuse(
                f"bus.transaction(): which database? Services with one here: {names}; say"
                " bus.transaction(service), and Service(name, database='sqlite:///...')"
            )
        return hosts[0].units.open()

    def asgi(self) -> Asgi:
        """The ASGI application in front of the desk."""
        largest = self._plan.settings.body_max_bytes
        return registry.asgi_app(
            self.desk, self.codec, self._ports, body_max_bytes=largest, name=self._plan.name
        )

    def _connect(self, service: str, peer: Peer | None) -> Transport:
        if peer is None:
            return registry.local_transport(self.desk, self._ports.clock)
        largest = self._plan.settings.body_max_bytes
        return registry.http_transport(
            service, peer, codec=self.codec, ports=self._ports, body_max_bytes=largest
        )

    def _guard(
        self, operation: Operation[Any, Any], peer: Peer | None, transport: Transport
    ) -> Next[object]:
        policy = self._plan.settings.policy if peer is None or peer.policy is None else peer.policy
        layers = recipes.call(policy, operation, self._ports, has_timer=transport.has_timer)
        return recipes.assembled(layers, transport.send, self._ports.observer)


class Running:
    """The parts of an open bus, made in its event loop."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self._engine = engine
        self._plan = plan
        self.fatal: BaseException | None = None
        ports, settings = plan.ports, plan.settings
        self._is_owner = isinstance(plan.broker, str)
        self.broker: Broker = (
            registry.open_broker(plan.broker, ports.clock)
            if isinstance(plan.broker, str)
            else plan.broker
        )
        self.tasks: AsyncioTasks = AsyncioTasks(self._failed)
        self._executor = ThreadPoolExecutor(settings.threads_max, "callcast-handler")
        self._coalescer = Coalescer(
            self.broker, ports=ports, tasks=self.tasks, breaker=settings.policy.breaker
        )
        self.sender: Sender = Sender(self.broker, self._coalescer, ports=ports, settings=settings)
        self._leases = Leases(ports.clock)
        self.hosts: list[Host] = []
        self.inquiries: Inquiries = Inquiries(plan.name, ports.new_id(), ports.clock)
        self._answers: Worker | None = None
        self._asking = asyncio.Lock()

    async def open(self, bus: object) -> None:
        """Hosts, topics, workers, in this order."""
        refuse_twins(
            (handler for service in self._plan.services for handler in service.handlers),
            "a bus runs one handler for each, whichever Service object declares it",
        )
        house = self._house(bus)
        for service in self._plan.services:
            host = Host(service, house)
            self.hosts.append(host)
            await host.open()
        sources = [source for host in self.hosts for source in host.sources]
        if sources:
            await self.broker.ensure([source.topic for source in sources], sources)
        for host in self.hosts:
            await host.start()

    async def close(self) -> None:
        """Drain and close in the order of the table above; every step runs, whatever fails."""
        clock = self._plan.ports.clock
        until = clock.now() + self._plan.settings.drain
        async with AsyncExitStack() as steps:  # run from the last pushed to the first
            steps.callback(self._executor.shutdown, wait=False, cancel_futures=True)
            if self._is_owner:
                steps.push_async_callback(self.broker.close)
            steps.push_async_callback(self.tasks.close)
            steps.push_async_callback(self._coalescer.close, until)
            steps.push_async_callback(self._close_answers, until)
            for host in self.hosts:
                steps.push_async_callback(host.close)
            for host in self.hosts:
                steps.push_async_callback(host.drain_relay, until)
            steps.push_async_callback(self._engine.desk.drain, until)
            for host in self.hosts:
                steps.push_async_callback(host.drain, until)

    async def request(
        self, operation: Operation[Any, Any], message: Message, deadline: float
    ) -> object:
        """Send a request and wait for its answer on this bus's own reply address."""

        async def send(until: float) -> None:
            await unsent_on_failure(
                self._hear_answers(),
                "the address of its answer could not be made",
                clock=self._plan.ports.clock,
                until=until,
                id=message.id,
            )
            sender = self.sender
            if sender.knows(operation):
                await sender.send(message, until=until)
            else:
                await sender.first(operation, message, until=until)

        body = await self.inquiries.ask(message, send, deadline)
        return self._engine.codec.decoder(operation.response)(body)

    async def _hear_answers(self) -> None:
        """Open the reply address on first use: most programs never ask over the broker."""
        async with self._asking:
            if self._answers is not None:
                return
            source = self.inquiries.source
            await self.broker.ensure([source.topic], [source])
            subscription = Subscription(
                source=source,
                contract=self.inquiries.contract,
                service=self._plan.name,
                handler="the answers of bus.request",
                run=self.inquiries.receive,
            )
            worker = Worker(
                self.broker,
                subscription,
                ports=self._plan.ports,
                tasks=self.tasks,
                leases=self._leases,
            )
            await worker.start()
            self._answers = worker
            self.tasks.start(retire_abandoned(self.broker), name="abandoned reply addresses")

    async def _close_answers(self, until: float) -> None:
        """Nobody else can use the address: it goes with this bus where the broker can retire it."""
        if self._answers is None:
            return
        await self._answers.drain(until)
        if isinstance(self.broker, Retires):
            await self.broker.retire(self.inquiries.source)

    def _house(self, bus: object) -> House:
        engine, plan = self._engine, self._plan
        return House(
            bus=bus,
            name=plan.name,
            broker=self.broker,
            codec=engine.codec,
            envelopes=engine.envelopes,
            ports=plan.ports,
            settings=plan.settings,
            tasks=self.tasks,
            leases=self._leases,
            executor=self._executor,
            desk=engine.desk,
            send=self.sender.send,
            open_database=self._open_database,
        )

    def _open_database(self, service: Service, asked: str) -> Database:
        """What a service declared; else what the settings say, or a file beside the broker's.

        Never the broker's own file: a handler that holds a write transaction while it awaits a
        publish would stop its own broker. `asked` is the handler that wants a transaction.
        """
        ports = self._plan.ports
        url = self._plan.broker if isinstance(self._plan.broker, str) else ""
        declared = service.database
        if declared is None and self._plan.settings.database:
            declared = self._plan.settings.database.replace("{service}", service.name)
        if declared is not None:
            if isinstance(declared, str) and registry.is_one_file(url, declared):
                raise Misuse(
                    f"service {service.name!r}: its database is the broker's own file, which an"
                    " open transaction would stop: name another file, or none for one beside it"
                )
            try:
                return registry.open_database(declared, ports)
            except Misuse as error:
                raise Misuse(f"service {service.name!r}: {error}") from error
        if url.startswith("sqlite:"):
            path = Path(registry.sqlite_path(url))
            return registry.sqlite_database(
                str(path.with_name(f"{path.stem}.{service.name}.db")), ports
            )
        if self.broker.traits.name == "memory":
            return registry.sqlite_database(":memory:", ports)
        raise Misuse(
            f"{asked} takes a Transaction, but service {service.name!r} has no database: say"
            f" Service({service.name!r}, database='sqlite:///...'), or CALLCAST_DATABASE"
        )

    def _failed(self, name: str, error: BaseException) -> None:
        """A child ended with an error that it should have handled: this bus cannot go on well."""
        _log.critical("part of the bus failed", extra={"part": name}, exc_info=error)
        self._engine.desk.is_alive = False
        if self.fatal is None:
            self.fatal = error
