"""The programs that the crash tests kill: a shop on real files, each role a real process.

Run as ``python crash_program.py ROLE FOLDER [NUMBER]``; ``CALLCAST_FAILPOINTS`` arms the places,
``CRASH_MUTANT`` takes one guard away. The ledgers have no unique constraint: what happens twice
is seen twice.

    sell    places orders 0..NUMBER-1 that are not placed yet, each a row and an event in one
            transaction; the relay starts after the last one
    pack    handles the events, each an effect and an event in one transaction, until nothing waits
    tap     writes down what arrived, without an inbox, until nothing waits
    redrive sends the dead letters of the packers again
    purge   purges the packers' inbox of everything
    again   sends all placed orders to the packers once more, as a replay does
    garbage publishes bytes that are no order
    dead    prints the dead letters of the packers
    look    prints how often each message that waits was put off

With ``CRASH_GATE`` no consumer opens before there is a file ``gate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec.structs import replace as changed

from callcast import Bus, Context, Event, Service, Struct, Transaction
from callcast.brokers.sqlite import SqliteBroker
from callcast.cli.letters import Redrive, Wanted, browse
from callcast.core.errors import CommitUnknown, Refused, Unavailable
from callcast.core.message import Message
from callcast.core.outcome import Dead, Done, Outcome
from callcast.core.work import Work
from callcast.ports.broker import Browses, Consumer, Delivery, Part, Source
from callcast.ports.session import Session
from callcast.runtime import outbox_feed
from callcast.runtime.inbox import sweep
from callcast.runtime.relay import Relay
from callcast.runtime.settings import Settings
from callcast.runtime.system import system_ports
from callcast.runtime.transaction import Units
from callcast.stores.inbox import Arrival, Inbox, Seen
from callcast.stores.outbox import KEY_SEQ, Outbox
from callcast.testing.faults import Faults

KEYS = 3
LEASE = 1.0
"""Seconds; short, so that a stopped process is soon given up."""


class Order(Struct):
    number: int

    @property
    def key(self) -> str:
        return f"k{self.number % KEYS}"


PLACED = Event("orders.placed", Order, key=lambda order: order.key)
PACKED = Event("orders.packed", Order)

FOLDER = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
POISON = "CRASH_POISON" in os.environ

orders = Service(
    "orders",
    database=f"sqlite:///{FOLDER / 'orders' / 'orders.db'}",
    schema=["create table if not exists placed (number integer)"],
)
packers = Service(
    "packers",
    database=f"sqlite:///{FOLDER / 'packers' / 'packers.db'}",
    schema=["create table if not exists effects (number integer, process integer)"],
)
tappers = Service("tappers")
nobody = Service("nobody")


@packers.on(PLACED)
async def pack(order: Order, tx: Transaction) -> None:
    if POISON:
        raise Refused("not today")
    await tx.execute("insert into effects values (?, ?)", order.number, os.getpid())
    await tx.publish(PACKED, order)


copies: list[tuple[object, ...]] = []


@tappers.on(PLACED)
async def tap_placed(order: Order, context: Context) -> None:
    sequence = int(context.headers[KEY_SEQ])
    copies.append((PLACED.topic, context.message_id, order.number, sequence))


@tappers.on(PACKED)
async def tap_packed(order: Order, context: Context) -> None:
    copies.append((PACKED.topic, context.message_id, order.number, 0))


class Lossy:
    """A consumer around the broker's own, with places before and after the acknowledgement."""

    def __init__(self, consumer: Consumer, reach: Faults) -> None:
        self._consumer = consumer
        self._reach = reach
        self.fetch = consumer.fetch
        self.renew = consumer.renew
        self.close = consumer.close

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        for _, outcome in verdicts:
            if isinstance(outcome, Dead):
                self._reach("inbox.before_dead")
            if isinstance(outcome, Done):
                self._reach("inbox.before_ack")
        await self._consumer.settle(verdicts)
        for _, outcome in verdicts:
            if isinstance(outcome, Dead):
                self._reach("inbox.after_dead")
            if isinstance(outcome, Done):
                self._reach("inbox.after_ack")


def bus_of(folder: Path, service: Service, faults: Faults) -> Bus:
    """A bus of one service with short waits."""
    url = f"sqlite:///{folder / 'broker.db'}"
    ports = replace(system_ports(url), failpoints=faults)
    settings = Settings(lease=LEASE, kill_switch_wait=0.5)
    return Bus(url, name=service.name, services=[service], settings=settings, ports=ports)


def wire(faults: Faults, confirming: str) -> None:
    """Put places around the embedded broker: before a confirm arrives, and around the ack."""
    publish, consume = SqliteBroker.publish, SqliteBroker.consume

    async def publishing(self: SqliteBroker, messages: Sequence[object]) -> None:
        await publish(self, messages)  # type: ignore[arg-type]
        faults(confirming)

    async def consuming(self: SqliteBroker, source: Source, **options: object) -> Consumer:
        if "CRASH_GATE" in os.environ:
            faults("gate")
            while not (FOLDER / "gate").exists():
                await asyncio.sleep(0.01)
        consumer = await consume(self, source, **options)  # type: ignore[arg-type]
        return Lossy(consumer, faults)

    SqliteBroker.publish = publishing  # type: ignore[method-assign,assignment]
    SqliteBroker.consume = consuming  # type: ignore[method-assign,assignment]


def hold_relay() -> asyncio.Event:
    """Let no relay look before this is set: places are passed in an order that is known."""
    go = asyncio.Event()
    fetch = outbox_feed.OutboxConsumer.fetch

    async def fetching(
        self: outbox_feed.OutboxConsumer, limit: int, wait: float
    ) -> Sequence[Delivery]:
        await go.wait()
        return await fetch(self, limit, wait)

    outbox_feed.OutboxConsumer.fetch = fetching  # type: ignore[method-assign]
    return go


def watch_marks(folder: Path) -> None:
    """Write down every mark: its epoch, the lane's, and how many rows it changed."""
    mark = Outbox.mark

    async def marking(self: Outbox, session: Session, epoch: int, ids: Sequence[int]) -> int:
        changed = await mark(self, session, epoch, ids)
        (row,) = await session.fetch("select max(epoch) from callcast_outbox_lane")
        write_down(folder, epoch, row[0], changed)
        return changed

    Outbox.mark = marking  # type: ignore[method-assign]


def write_down(folder: Path, epoch: int, latest: object, changed: int) -> None:
    file = os.open(folder / "marks", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.write(file, f"{epoch} {latest} {changed}\n".encode())
    os.close(file)


def settings_of_test() -> None:
    """Short leases and polls; with CRASH_CLEAN everything published is old enough to go."""
    retention = 3600.0 if "CRASH_CLEAN" in os.environ else 72 * 3600.0
    quick = outbox_feed.OutboxSettings(
        lease=LEASE, margin=0.2, poll=0.01, poll_max=0.1, retention=retention
    )
    worker = Relay.worker

    def relaying(self: Relay, tasks: object, **more: object) -> object:
        return worker(self, tasks, **{**more, "settings": quick})  # type: ignore[arg-type]

    Relay.worker = relaying  # type: ignore[method-assign,assignment]


# Mutants: each takes one guard away. The checks must fail then.


def without_inbox() -> None:
    async def find(_self: Inbox, _database: object, _arrival: Arrival) -> Seen | None:
        return None

    async def enter(_self: Inbox, _session: Session, _arrival: Arrival) -> Seen | None:
        return None

    Inbox.find = find  # type: ignore[method-assign,assignment]
    Inbox.enter = enter  # type: ignore[method-assign]


def inbox_row_first() -> None:
    """The inbox row in a transaction of its own, before the handler."""
    unit = Units.unit
    find = Inbox.find

    async def finding(self: Inbox, database: object, arrival: Arrival) -> Seen | None:
        seen = await find(self, database, arrival)  # type: ignore[arg-type]
        if seen is None:
            async with database.begin() as session:  # type: ignore[attr-defined]
                await self.enter(session, arrival)
        return seen

    def bare(self: Units, _arrival: Arrival | None) -> object:
        return unit(self, None)

    Inbox.find = finding  # type: ignore[method-assign,assignment]
    Units.unit = bare  # type: ignore[method-assign,assignment]


def without_fence() -> None:
    mark = Outbox.mark

    async def is_mine(_self: Outbox, _session: Session, _epoch: int) -> bool:
        return True

    async def marking(self: Outbox, session: Session, epoch: int, ids: Sequence[int]) -> int:
        """Mark whatever the epoch; the one handed in is what is written down."""
        (row,) = await session.fetch("select max(epoch) from callcast_outbox_lane")
        changed = await mark(self, session, int(str(row[0])), ids)
        write_down(FOLDER, epoch, row[0], changed)
        return changed

    Outbox.is_mine = is_mine  # type: ignore[method-assign]
    Outbox.mark = marking  # type: ignore[method-assign]


def mark_before_publish() -> None:
    run = Relay.run

    async def running(self: Relay, work: Work) -> Outcome:
        units = self._units
        async with units.database.begin() as session:
            (row,) = await session.fetch(
                "select o.id, max(l.epoch) from callcast_outbox o, callcast_outbox_lane l"
                " where o.message_id = ?",
                work.id,
            )
            await units.outbox.mark(session, int(str(row[1])), [int(str(row[0]))])
        return await run(self, work)

    Relay.run = running  # type: ignore[method-assign]


def ack_before_commit() -> None:
    """Acknowledge at receipt."""
    init = Lossy.__init__

    def eager(self: Lossy, consumer: Consumer, reach: Faults) -> None:
        init(self, consumer, reach)
        fetch = consumer.fetch

        async def fetching(limit: int, wait: float) -> Sequence[Delivery]:
            batch = await fetch(limit, wait)
            await consumer.settle([(delivery, Done()) for delivery in batch])
            return batch

        self.fetch = fetching

    async def ignoring(self: Lossy, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None: ...

    Lossy.__init__ = eager  # type: ignore[method-assign]
    Lossy.settle = ignoring  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "without_inbox": without_inbox,
    "inbox_row_first": inbox_row_first,
    "without_fence": without_fence,
    "mark_before_publish": mark_before_publish,
    "ack_before_commit": ack_before_commit,
}


async def sell(folder: Path, faults: Faults, number: int) -> None:
    go = hold_relay()
    if os.environ.get("CRASH_MUTANT") != "without_fence":
        watch_marks(folder)
    async with bus_of(folder, orders, faults) as bus:
        for each in range(number):
            await place(bus, each, folder)
        go.set()
        await bus.idle(60)
        while await unsent(bus):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.05)


async def place(bus: Bus, number: int, folder: Path) -> None:
    while True:
        try:
            async with bus.transaction() as tx:
                if not await tx.fetch("select 1 from placed where number = ?", number):
                    await tx.execute("insert into placed values (?)", number)
                    await tx.publish(PLACED, Order(number))
        except CommitUnknown:
            (folder / "unknown").write_text(str(number))
            raise
        except Unavailable as error:
            (folder / "unavailable").write_text(str(error))
            await asyncio.sleep(0.02)
        else:
            return


async def unsent(bus: Bus) -> int:
    rows = await units_of(bus).database.read(
        "select count(*) from callcast_outbox where state <> 1"
    )
    return int(str(rows[0][0]))


def units_of(bus: Bus) -> Units:
    units = bus._engine.running.hosts[0].units
    assert units is not None
    return units


async def consume(folder: Path, service: Service, faults: Faults) -> None:
    go = hold_relay()
    (folder / f"ready-{os.getpid()}").write_text("")
    async with bus_of(folder, service, faults) as bus:
        broker = bus._engine.running.broker
        sources = [handler.source for handler in service.handlers]
        while True:
            lags = [await broker.lag(source) for source in sources]
            if not any(lag.ready or lag.leased or lag.delayed for lag in lags):
                break
            await asyncio.sleep(0.02)
        go.set()
        await bus.idle(60)


async def tap(folder: Path, faults: Faults) -> None:
    await consume(folder, tappers, faults)
    for copy in copies:
        print(*copy, flush=True)


async def redrive(folder: Path, faults: Faults) -> None:
    """`callcast dlq redrive`, again and again until no letter is left.

    What a killed redrive had in its hands is free again a moment later.
    """
    async with bus_of(folder, nobody, faults) as bus:
        broker = bus._engine.running.broker
        wanted = Wanted(group=packers.name)
        clock = system_ports("sqlite:///").clock
        while (await broker.lag(packers.handlers[0].source)).dead:
            sending = Redrive(broker, wanted, clock=clock, by="a test")
            async with contextlib.aclosing(sending()) as results:
                async for result in results:
                    print(result.id, result.error, flush=True)
            await asyncio.sleep(0.05)


async def purge(folder: Path, faults: Faults) -> None:
    async with bus_of(folder, packers, faults) as bus:

        async def nothing() -> float:
            return 0.0

        await sweep(units_of(bus), packers.name, retention=0.0, oldest=nothing)


async def subscribe(folder: Path, faults: Faults) -> None:
    """Make all sources exist, and the packers' database."""
    for service in (packers, tappers):
        async with bus_of(folder, service, faults):
            pass


async def again(folder: Path, faults: Faults) -> None:
    """Send everything that was placed once more to the packers alone, as a replay does."""
    async with bus_of(folder, orders, faults) as bus:
        rows = await units_of(bus).database.read("select message from callcast_outbox order by id")
        for row in rows:
            message = msgspec.msgpack.decode(row[0], type=Message)  # type: ignore[arg-type]
            message = changed(message, group=packers.name)
            await bus._engine.running.broker.publish([message])


async def garbage(folder: Path, faults: Faults) -> None:
    """Publish bytes that are no order."""
    async with bus_of(folder, nobody, faults) as bus:
        body = b"\xff\x00 no order"
        message = Message("garbage", "elsewhere", PLACED.name, PLACED.topic, body, key="g")
        await bus._engine.running.broker.publish([message])


async def look(folder: Path, faults: Faults) -> None:
    """Print how often each message of the packers was put off."""
    async with bus_of(folder, nobody, faults) as bus:
        broker = bus._engine.running.broker
        assert isinstance(broker, Browses)
        for part in (Part.READY, Part.DELAYED):
            for glimpse in await broker.browse(packers.handlers[0].source, part=part):
                print(glimpse.message.id, glimpse.round, flush=True)


async def dead(folder: Path, faults: Faults) -> None:
    """Print the dead letters of the packers."""
    async with bus_of(folder, nobody, faults) as bus:
        async for letter, message in browse(bus._engine.running.broker, Wanted(group=packers.name)):
            print(letter.id, message.body.hex(), letter.reason, flush=True)


ROLES: dict[str, Callable[[Path, Faults], Coroutine[object, object, None]]] = {
    "pack": lambda folder, faults: consume(folder, packers, faults),
    "tap": tap,
    "redrive": redrive,
    "purge": purge,
    "subscribe": subscribe,
    "again": again,
    "garbage": garbage,
    "dead": dead,
    "look": look,
}


def main() -> None:
    role, _, *rest = sys.argv[1:]
    faults = Faults.from_environment()
    wire(faults, "dlq.mid_redrive" if role == "redrive" else "outbox.unconfirmed")
    settings_of_test()
    MUTANTS[os.environ.get("CRASH_MUTANT", "")]()
    if role == "sell":
        asyncio.run(sell(FOLDER, faults, int(rest[0])))
    else:
        asyncio.run(ROLES[role](FOLDER, faults))


if __name__ == "__main__":
    main()
