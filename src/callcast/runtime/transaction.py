"""Transactions as a program sees them: business rows and messages in one commit."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

import msgspec
from msgspec.structs import replace
from typing_extensions import Unpack

from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.work import Kind, Work
from callcast.ports.codec import Codec
from callcast.ports.session import Database, Row
from callcast.runtime.envelope import Envelopes, Sending
from callcast.runtime.ports import Ports
from callcast.runtime.replies import answer_by
from callcast.runtime.sending import traced
from callcast.runtime.unit import Unit
from callcast.stores.inbox import Arrival, Inbox, Seen
from callcast.stores.outbox import Outbox

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")
C = TypeVar("C")

SERVICE = "callcast-service"
"""Header of a cast that waits in an outbox: whose queue must exist before it leaves."""

PREPARE_WAIT = 30.0
"""Seconds a start waits for the lock: another process may be in the middle of its own."""

_NAMESPACE = uuid.UUID("0b7c6a4e-64a4-5d0a-9a3c-6a0d5f1f7f5e")
"""Namespace of derived ids; never to change, or reruns would send under new ids."""


class Transaction:
    """Writes and sends that take effect together, or not at all.

    A handler gets one by annotating a parameter with it; `bus.transaction()` opens one elsewhere.
    The database transaction begins at the first statement. In a handler the inbox row comes with
    it: when a faster twin has committed the same message by then, `Duplicate` leaves the handler
    and nothing of it is written. It ends with its handler or block; later use is `Misuse`.
    Statements raise `Busy`, `Unavailable` and what the driver raises.
    """

    def __init__(self, unit: Unit, envelopes: Envelopes, ports: Ports) -> None:
        self._unit = unit
        self._envelopes = envelopes
        self._ports = ports
        self._repeats: Counter[str] = Counter()  # how often this content was sent already

    @property
    def is_open(self) -> bool:
        """Whether the database transaction has begun and holds its lock."""
        return self._unit.is_open

    async def execute(self, sql: str, *args: object) -> int:
        """Run a statement; the number of rows it changed."""
        session = await self._unit.session()
        changed = await session.execute(sql, *args)
        self._ports.failpoints("inbox.mid_handler")
        return changed

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run a query; all its rows."""
        session = await self._unit.session()
        return await session.fetch(sql, *args)

    async def connection(self, form: type[C]) -> C:
        """The driver's own connection or session, for statements of your own inside this commit.

        Raises `Misuse` when the database has another one than `form`.
        """
        session = await self._unit.session()
        connection = session.connection()
        if not isinstance(connection, form):
            raise Misuse(
                f"tx.connection({form.__qualname__}): this database has a"
                f" {type(connection).__module__}.{type(connection).__qualname__}"
            )
        return connection

    async def publish(
        self,
        event: Event[T],
        value: T,
        *,
        id: str = "",
        **sending: Unpack[Sending],
    ) -> str:
        """Publish with the commit; the message's id. In a handler a rerun repeats the same id."""
        message = self._envelopes.event(event, value, id, sending=sending)
        return await self.send(self._named(message, id))

    async def cast(
        self,
        operation: Operation[Q, A],
        request: Q,
        *,
        id: str = "",
        reply_to: Event[A] | None = None,
        **sending: Unpack[Sending],
    ) -> str:
        """Cast with the commit; the message's id. In a handler a rerun repeats the same id."""
        headers = {SERVICE: operation.service}
        if reply_to is not None:
            headers |= answer_by(operation, reply_to)
        message = self._envelopes.command(operation, request, id, sending=sending, own=headers)
        return await self.send(self._named(message, id))

    async def send(self, message: Message) -> str:
        """Send a message made elsewhere with the commit, as it is; its id."""
        observer = self._ports.observer
        work = Work(Kind.PUBLISH, message.type, message.id, peer=message.topic, message=message)
        if observer.is_tracing:
            span = observer.begin(work)
            carrier = observer.carrier(work)
            span.end()
        else:
            carrier = observer.carrier(work)
        self._unit.hold(traced(message, carrier) if carrier else message)
        return message.id

    def _named(self, message: Message, id: str) -> Message:
        if id or self._unit.arrival is None:
            return message
        return replace(message, id=self._derived(self._unit.arrival, message))

    def _derived(self, arrival: Arrival, message: Message) -> str:
        digest = hashlib.sha256(message.body).hexdigest()
        content = (message.topic, message.key, digest)
        number = self._repeats[repr(content)] = self._repeats[repr(content)] + 1
        incoming = (arrival.consumer, arrival.source, arrival.message_id)
        name = msgspec.json.encode((*incoming, *content, number)).decode()
        return str(uuid.uuid5(_NAMESPACE, name))


AMBIENT_TRANSACTION: ContextVar[Transaction | None] = ContextVar(
    "callcast_transaction", default=None
)
"""The transaction of the handler or block that is running: beside it nothing is sent directly."""


class Units:
    """Opens transactions on one service's database; what they send leaves through one bus."""

    def __init__(
        self,
        database: Database,
        *,
        envelopes: Envelopes,
        ports: Ports,
        bus: str,
        wait: float = 5.0,
    ) -> None:
        self.database = database
        self.outbox: Outbox = Outbox(database.dialect, bus)
        self.inbox: Inbox = Inbox(database.dialect)
        self.codec: Codec = envelopes.codec
        self.ports = ports
        self._envelopes = envelopes
        self._wait = wait
        self._nudges: list[Callable[[], None]] = []

    async def prepare(self, schema: Sequence[str] = ()) -> None:
        """Make the tables, and run the service's own `schema` statements; idempotent.

        Raises `Busy`, `Unavailable`, or `Misuse` when a newer callcast made the tables.
        """
        async with self.database.begin(wait=PREPARE_WAIT) as session:
            await self.outbox.create(session)
            await self.inbox.create(session)
            for statement in schema:
                await session.execute(statement)

    def on_commit(self, nudge: Callable[[], None]) -> None:
        """Have `nudge` called after each commit that sends something."""
        self._nudges.append(nudge)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Transaction]:
        """A transaction outside a handler: commits on a clean exit, else rolls back.

        Raises `Busy`, `Unavailable` (nothing happened), `CommitUnknown` (it may have).
        """
        unit = self.unit(None)
        transaction = self.transaction(unit)
        with ambient(transaction):
            try:
                yield transaction
            except BaseException as error:
                await unit.roll_back(error)
                raise
            await self.commit(unit)

    def unit(self, arrival: Arrival | None) -> Unit:
        """A unit of work that has not begun; with an arrival it happens once."""
        stores = (self.outbox, self.inbox)
        return Unit(self.database, stores, self.ports.failpoints, arrival=arrival, wait=self._wait)

    def transaction(self, unit: Unit) -> Transaction:
        """The face of a unit that a handler gets."""
        return Transaction(unit, self._envelopes, self.ports)

    async def commit(self, unit: Unit, reply: bytes | None = None) -> None:
        """Commit a unit and wake whoever relays."""
        await unit.commit(reply, self._nudge)

    async def pending(self) -> int:
        """Messages of this bus that will leave now; not those that back off or are parked."""
        rows = await self.outbox.pending(self.database)
        return sum(row.ready for row in rows if row.bus == self.outbox.bus)

    async def find(self, arrival: Arrival) -> Seen | None:
        """Look in the inbox, without a lock."""
        return await self.inbox.find(self.database, arrival)

    def _nudge(self) -> None:
        for nudge in self._nudges:
            nudge()


@contextmanager
def ambient(transaction: Transaction | None) -> Generator[None]:
    """Make this the transaction beside which nothing is sent directly."""
    before = AMBIENT_TRANSACTION.get()
    AMBIENT_TRANSACTION.set(transaction)
    try:
        yield
    finally:
        # Not by token: a fixture may leave the block in another context than it entered it.
        AMBIENT_TRANSACTION.set(before)
