"""Parts for tests of transactions: real SQLite, a clock, units, an observer that remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from callcast.codecs.json_codec import JsonCodec
from callcast.core.contract import Event, Operation
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Kind, Work
from callcast.policies.silent import Silent
from callcast.ports.clock import Clock
from callcast.ports.failpoints import Failpoints, nowhere
from callcast.ports.observer import Fact
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.envelope import Envelopes
from callcast.runtime.ports import Ports
from callcast.runtime.tasks import AsyncioTasks
from callcast.runtime.transaction import Transaction, Units
from callcast.sessions.sqlite import SqliteDatabase

PLACED = Event("orders.placed", str, key=lambda value: value.partition(":")[0])
PACKED = Event("orders.packed", str)
CHARGE = Operation("payments.charge", int, int, once=True)
MAIL = Operation("mail.send", str, None, idempotent=True)


class Remembering(Silent):
    """Keeps the facts."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    @property
    def hears_success(self) -> bool:
        return True

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)


class Tracing(Remembering):
    """Records, with one trace for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Work] = []

    @property
    def is_tracing(self) -> bool:
        return True

    def begin(self, work: Work) -> object:  # type: ignore[override]
        self.begun.append(work)
        return super().begin(work)

    def carrier(self, work: Work) -> Mapping[str, str]:
        return {"traceparent": "00-trace", "tracestate": "s=1", "baggage": "b=1"}


@dataclass(kw_only=True)
class Bench:
    """Everything a test of transactions needs, on one database."""

    database: SqliteDatabase
    ports: Ports
    units: Units
    tasks: AsyncioTasks
    observer: Remembering
    failed: list[tuple[str, BaseException]] = field(default_factory=list)

    async def rows(self, sql: str, *args: object) -> list[object]:
        """The first column."""
        return [row[0] for row in await self.database.read(sql, *args)]

    async def ledger(self) -> list[object]:
        return await self.rows("select note from ledger order by rowid")

    async def sent(self) -> list[object]:
        """Ids in the outbox."""
        return await self.rows("select message_id from callcast_outbox order by id")


@asynccontextmanager
async def bench(
    path: str = ":memory:",
    *,
    clock: Clock | None = None,
    failpoints: Failpoints = nowhere,
    observer: Remembering | None = None,
    bus: str = "shop",
    wait: float = 5.0,
) -> AsyncIterator[Bench]:
    """Units on a SQLite file; the database has a ledger without any constraint."""
    real = clock or AsyncioClock()
    observer = observer or Remembering()
    count = iter(range(1, 1_000_000))
    ports = Ports(
        clock=real,
        dice=lambda: 0.5,
        new_id=lambda: f"new-{next(count)}",
        observer=observer,
        failpoints=failpoints,
    )
    failed: list[tuple[str, BaseException]] = []
    tasks = AsyncioTasks(lambda name, error: failed.append((name, error)))
    database = SqliteDatabase(path, clock=AsyncioClock(), failpoints=failpoints)
    units = Units(
        database, envelopes=Envelopes(JsonCodec(), bus, ports), ports=ports, bus=bus, wait=wait
    )
    try:
        await units.prepare(["create table if not exists ledger (note)"])
        yield Bench(
            database=database,
            ports=ports,
            units=units,
            tasks=tasks,
            observer=observer,
            failed=failed,
        )
    finally:
        await tasks.close()
        await database.close()
    assert failed == []


def consumed(message: Message, contract: object = PLACED, value: object = "a:1") -> Work:
    return Work(Kind.CONSUME, message.type, message.id, contract, value=value, message=message)


def incoming(id_: str = "m-1", body: bytes = b'"a:1"', **more: object) -> Message:
    return Message(id_, "orders", "orders.placed", "orders.placed", body, **more)  # type: ignore[arg-type]


def transaction_of(work: Work) -> Transaction:
    assert isinstance(work.transaction, Transaction)
    return work.transaction


def handler(
    *steps: Callable[[Transaction], object],
) -> Callable[[Work], object]:
    """A handler that runs these asynchronous steps on its transaction."""

    async def handle(work: Work) -> Outcome:
        for step in steps:
            await step(transaction_of(work))  # type: ignore[misc]
        return DONE

    return handle
