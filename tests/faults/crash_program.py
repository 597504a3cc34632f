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
    relay   relays what others sell, from when there is a file ``gate`` until there is one ``stop``

With ``CRASH_GATE`` no consumer opens before there is a file ``gate``; with ``CRASH_UNRENEWED`` no
relay renews its lane; with ``CRASH_TOO_LARGE`` no broker takes order 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import msgspec
from crash_mutants import MUTANTS
from crash_places import LEASE, hold_relay, hurry, never_renew, watch_marks, wire
from msgspec.structs import replace as changed

from callcast import Bus, Context, Event, Service, Struct, Transaction
from callcast.cli.letters import Redrive, Wanted, browse
from callcast.core.errors import CommitUnknown, Refused, Unavailable
from callcast.core.message import Message
from callcast.ports.broker import Browses, Part
from callcast.runtime.settings import Settings
from callcast.runtime.sweeper import sweep
from callcast.runtime.system import system_ports
from callcast.runtime.transaction import Units
from callcast.stores.outbox import KEY_SEQ
from callcast.testing.faults import Faults

KEYS = 3


class Order(Struct, omit_defaults=True):
    number: int
    filler: str = ""

    @property
    def key(self) -> str:
        return f"k{self.number % KEYS}"


PLACED = Event("orders.placed", Order, key=lambda order: order.key)
PACKED = Event("orders.packed", Order)

FOLDER = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
POISON = "CRASH_POISON" in os.environ
TOO_LARGE = "x" * 2_000_000 if "CRASH_TOO_LARGE" in os.environ else ""

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


def bus_of(folder: Path, service: Service, faults: Faults) -> Bus:
    """A bus of one service with short waits."""
    url = f"sqlite:///{folder / 'broker.db'}"
    ports = replace(system_ports(url), failpoints=faults)
    settings = Settings(lease=LEASE, kill_switch_wait=0.5)
    return Bus(url, name=service.name, services=[service], settings=settings, ports=ports)


async def sell(folder: Path, faults: Faults, number: int) -> None:
    go = hold_relay()
    if os.environ.get("CRASH_MUTANT") != "without_fence":
        watch_marks(folder)
    async with bus_of(folder, orders, faults) as bus:
        for each in range(number):
            await place(bus, each, folder)
        go.set()
        if not TOO_LARGE:
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
                    await tx.publish(PLACED, Order(number, "" if number else TOO_LARGE))
        except CommitUnknown:
            (folder / "unknown").write_text(str(number))
            raise
        except Unavailable as error:
            (folder / "unavailable").write_text(str(error))
            await asyncio.sleep(0.02)
        else:
            return


async def unsent(bus: Bus) -> int:
    sql = "select count(*) from callcast_outbox where state <> 1"
    if TOO_LARGE:  # what is behind it waits for an operator
        sql += " and not (key = 'k0' and exists (select 1 from callcast_outbox where state = 2))"
    rows = await units_of(bus).database.read(sql)
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


async def relay(folder: Path, faults: Faults) -> None:
    go = hold_relay()
    async with bus_of(folder, orders, faults):
        (folder / f"ready-{os.getpid()}").write_text("")
        while not (folder / "gate").exists():
            await asyncio.sleep(0.01)
        go.set()
        while not (folder / "stop").exists():
            await asyncio.sleep(0.01)


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
    "relay": relay,
}


def main() -> None:
    role, _, *rest = sys.argv[1:]
    faults = Faults.from_environment()
    confirming = "dlq.mid_redrive" if role == "redrive" else "outbox.unconfirmed"
    wire(faults, confirming, FOLDER / "gate")
    hurry()
    if "CRASH_UNRENEWED" in os.environ:
        never_renew()
    MUTANTS[os.environ.get("CRASH_MUTANT", "")](FOLDER)
    if role == "sell":
        asyncio.run(sell(FOLDER, faults, int(rest[0])))
    else:
        asyncio.run(ROLES[role](FOLDER, faults))


if __name__ == "__main__":
    main()
