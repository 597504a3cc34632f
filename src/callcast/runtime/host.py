"""A service on a bus: database, lifespan, handlers, chains, workers."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version

from msgspec.structs import replace

from callcast.core.amqp import id_of
from callcast.core.context import Context
from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Layer, Work
from callcast.policies.notes import Origin
from callcast.policies.recovery import spoken
from callcast.ports.broker import Feed, Parks, Source, need
from callcast.ports.session import Database
from callcast.runtime import recipes
from callcast.runtime.dead_count import Counted
from callcast.runtime.envelope import REPLY_TO
from callcast.runtime.handlers import Bound, Injection, bind, wants_transaction
from callcast.runtime.house import House
from callcast.runtime.identify import Identify
from callcast.runtime.inbox import Inbox
from callcast.runtime.outbox_consumer import OutboxSettings
from callcast.runtime.relay import Relay
from callcast.runtime.replies import AnswerErrors, reply_to
from callcast.runtime.sending import trace_headers
from callcast.runtime.service import Handler, Service
from callcast.runtime.serving import Served
from callcast.runtime.subscription import Subscription, WorkerSettings
from callcast.runtime.sweeper import Sweeper
from callcast.runtime.traced_feed import traced
from callcast.runtime.transaction import Transaction, Units
from callcast.runtime.worker import Worker
from callcast.stores.inbox import arrival_of

_log = logging.getLogger("callcast")


class Host:
    """Runs one service; opened once, then closed."""

    def __init__(self, service: Service, house: House) -> None:
        self.service = service
        self._house = house
        self._stack = AsyncExitStack()
        self._yielded: object = None
        self._database: Database | None = None
        self.units: Units | None = None
        self._relay: Worker | None = None
        self._sweeper: Sweeper | None = None
        self.workers: list[Worker] = []

    @property
    def sources(self) -> Sequence[Source]:
        """What must exist at the broker before the workers start."""
        return [handler.source for handler in self.service.handlers if is_consumed(handler)]

    async def open(self) -> None:
        """Open the database, enter the lifespan, bind the handlers, make workers (not started).

        Raises `Misuse` for a handler that cannot be bound; what the lifespan raises passes.
        """
        service = self.service
        asking = [handler.where for handler in service.handlers if wants_transaction(handler)]
        if service.database is not None or asking:
            await self._open_database("".join(asking[:1]))
        if service.lifespan is not None:
            self._yielded = await self._stack.enter_async_context(service.lifespan())
        for handler in service.handlers:
            self._bind(handler)

    async def start(self) -> None:
        """Start the relay and the workers; their topics exist by now."""
        self._warn_of_forgetting()
        if self._relay is not None:
            await self._relay.start()
        if self._sweeper is not None:
            name = f"purge of the inbox of {self.service.name}"
            self._house.tasks.start(self._sweeper.run(), name=name)
        for worker in self.workers:
            await worker.start()

    async def drain(self, until: float) -> None:
        """Let the workers finish and settle, at most until then (monotonic)."""
        await asyncio.gather(*(worker.drain(until) for worker in self.workers))

    async def drain_relay(self, until: float) -> None:
        """Let the relay finish what it has in hand; what waits stays in the outbox."""
        if self._relay is not None:
            await self._relay.drain(until)

    async def outbox_pending(self) -> int:
        """Messages that wait in this service's outbox."""
        return 0 if self.units is None else await self.units.pending()

    async def close(self) -> None:
        """Leave the lifespan and close the database. Idempotent."""
        await self._stack.aclose()

    async def _open_database(self, asked: str) -> None:
        house, service = self._house, self.service
        database = house.open_database(service, asked)
        self._database = database
        self._stack.push_async_callback(database.close)
        self.units = Units(database, envelopes=house.envelopes, ports=house.ports, bus=house.name)
        await self.units.prepare(service.schema)
        relay = Relay(
            self.units,
            service.name,
            house.send,
            ports=house.ports,
            ensure=house.broker.ensure,
            binds=house.broker.traits.binds,
        )
        outbox = OutboxSettings(retention=house.settings.outbox_retention)
        self._relay = relay.worker(house.tasks, settings=outbox, leases=house.leases)
        retention = house.settings.inbox_retention
        self._sweeper = Sweeper(self.units, house.broker, retention=retention)

    def _warn_of_forgetting(self) -> None:
        """A replay may bring what the inbox no longer knows: it would be dead, not run."""
        kept, known = self._house.broker.traits.log_kept, self._house.settings.inbox_retention
        if self._sweeper is not None and kept > known:
            _log.warning(
                "the broker keeps messages longer than the inbox of service %s: replayed ones older"
                " than %.0f s are unknown and will be dead; raise inbox_retention to %.0f s",
                self.service.name,
                known,
                kept,
            )

    def _bind(self, handler: Handler) -> None:
        house = self._house
        bound = bind(handler, self._injection(), house.executor)
        contract = handler.contract
        if self._sweeper is not None and bound.takes_transaction:
            self._sweeper.add(handler.group, handler.source if is_consumed(handler) else None)
        if isinstance(contract, Operation):
            inbox = self._inbox(handler) if bound.takes_transaction else None
            layers = recipes.serve(house.ports, inbox)
            run = recipes.assembled(layers, _answering(bound), house.ports.observer)
            house.desk.add(Served(contract, self.service.name, run))
        if is_consumed(handler):
            self.workers.append(self._worker(handler, bound))

    def _injection(self) -> Injection:
        return Injection(
            asynchronous={
                type(self._house.bus): lambda _work, _context: self._house.bus,
                Transaction: lambda work, _context: work.transaction,
            },
            plain={Context: lambda _work, context: context},
            yielded=self._yielded,
            has_database=self._database is not None,
        )

    def _inbox(self, handler: Handler) -> Inbox:
        if self.units is None:
            raise Misuse(f"{handler.where} takes a Transaction, but its service has no database")
        return Inbox(self.units, handler.group, handler.contract)

    def _worker(self, handler: Handler, bound: Bound) -> Worker:
        house, settings = self._house, self._house.settings
        contract = handler.contract
        parks = isinstance(contract, Event) and contract.on_dead == "park"
        if parks:
            need(house.broker, Parks)
        self._check_hold(handler)
        subscription = Subscription(
            source=handler.source,
            contract=contract,
            service=self.service.name,
            handler=handler.where,
            run=self._consuming(handler, bound),
            timeout=handler.timeout,
            park=parks,
            slots=settings.slots,
            lease=settings.lease,
        )
        return Worker(
            traced(self._feed(handler, bound), house.ports),
            subscription,
            ports=house.ports,
            tasks=house.tasks,
            settings=WorkerSettings(
                kill_switch_wait=settings.kill_switch_wait, watchdog=settings.watchdog
            ),
            leases=house.leases,
        )

    def _check_hold(self, handler: Handler) -> None:
        """Raise `Misuse` where retries would hold a key for longer than the broker can."""
        traits = self._house.broker.traits
        longest = (handler.recovery or self._house.settings.recovery).longest
        if handler.source.ordered and longest > traits.hold_max:
            raise Misuse(
                f"{handler.where}: its retries may take {spoken(longest)}; on {traits.name} a retry"
                f" of an ordered event holds its key at the worker, for {spoken(traits.hold_max)}"
                " in all: shorten its delays, or leave out the event's key="
            )

    def _feed(self, handler: Handler, bound: Bound) -> Feed:
        """The broker; dead letters that the handler's inbox knows do not count."""
        broker, units = self._house.broker, self.units
        if units is None or not bound.takes_transaction:
            return broker

        identify = _identify(handler)

        async def is_handled(message: Message) -> bool:
            if identify:
                message = replace(message, id=id_of(identify, message))
            return await units.inbox.knows(units.database, arrival_of(message, handler.group))

        return Counted(broker, self._house.ports.clock, is_handled)

    def _consuming(self, handler: Handler, bound: Bound) -> Callable[[Work], Awaitable[Outcome]]:
        house, contract = self._house, handler.contract
        form = contract.request if isinstance(contract, Operation) else contract.type
        parts = recipes.Consuming(
            recovery=handler.recovery or house.settings.recovery,
            origin=Origin(
                source=contract.topic,
                group=handler.group,
                handler=handler.where,
                host=platform.node(),
                version=version("callcast"),
            ),
            type=contract.name,
            decode=house.codec.decoder(form),
            timeout=handler.timeout,
            inbox=self._inbox(handler) if bound.takes_transaction else None,
            identify=Identify(identify) if (identify := _identify(handler)) else None,
        )
        layers: list[Layer[Outcome]] = recipes.consume(parts, house.ports)
        if isinstance(contract, Operation):
            layers.insert(0, AnswerErrors(house.name, house.ports.clock, house.send))
        handle = self._handling(handler, bound)
        # The record is told each verdict by the worker, which knows more of it.
        return recipes.assembled(layers, handle, house.ports.observer, is_noted=False)

    def _handling(self, handler: Handler, bound: Bound) -> Callable[[Work], Awaitable[Outcome]]:
        """The innermost step of CONSUME: the handler in its context, then the answer, if any."""
        house, service, group = self._house, self.service.name, handler.group
        now, timeout, run = house.ports.clock.now, handler.timeout, bound.run
        contract = handler.contract
        encode = house.codec.encoder(contract.response) if isinstance(contract, Operation) else None

        async def handle(work: Work) -> Outcome:
            message = work.message
            if message is None:
                raise Misuse(f"{group!r}: a CONSUME chain was given work without a message")
            context = Context(
                message.id,
                message.correlation_id or message.id,
                message.causation_id,
                message.source,
                service,
                work.name,
                work.attempt,
                deadline=now() + timeout,
                headers=trace_headers(message),
            )
            result = await run(work, context)
            if encode is not None and REPLY_TO in message.headers:
                await self._answer(work, encode(result))
            return DONE

        return handle

    async def _answer(self, work: Work, body: bytes) -> None:
        """Send the result where the caster asked; within the transaction, when there is one."""
        house = self._house
        if work.message is None:
            return
        answer = reply_to(work.message, source=house.name, body=body, now=house.ports.clock.wall())
        if answer is None:
            return
        if isinstance(work.transaction, Transaction):
            await work.transaction.send(answer)
        else:
            await house.send(answer)


def is_consumed(handler: Handler) -> bool:
    """Whether messages come to it: events always, operations when they may be cast."""
    contract = handler.contract
    return isinstance(contract, Event) or contract.idempotent or contract.once


def _identify(handler: Handler) -> str | Callable[[Message], str]:
    """Where the ids of its messages are, if they are others'."""
    contract = handler.contract
    if not isinstance(contract, Event) or contract.amqp is None or not contract.amqp.queue:
        return ""
    return contract.amqp.identify


def _answering(bound: Bound) -> Callable[[Work], Awaitable[object]]:
    """The innermost step of SERVE."""

    async def answer(work: Work) -> object:
        if work.context is None:
            raise Misuse(f"{work.name!r}: a SERVE chain was given work without a context")
        return await bound.run(work, work.context)

    return answer
