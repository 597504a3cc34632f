"""A process of its own for the suite: ``python -m callcast.testing.broker_suite.child ORDERS``.

It does one of three things with a broker, and exits with 0 when it is done: `publish` sends
messages, `work` runs a real worker until nothing is left, `hang` runs one that never finishes.
A message whose body is ``poison`` kills the process with SIGKILL.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Literal, cast

import msgspec

from callcast.core.contract import Event
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Work
from callcast.policies.silent import Silent
from callcast.ports.broker import Broker, Source
from callcast.ports.failpoints import nowhere
from callcast.runtime.chance import Ids, system_dice
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription
from callcast.runtime.tasks import AsyncioTasks
from callcast.runtime.worker import Worker

POISON = b"poison"
PAUSE = 0.005
"""Seconds that a handler takes, so that several run when the process dies."""
LOOK = 0.05
"""Seconds between two looks at what is left."""
DRAIN = 5.0
PATIENCE = 60.0
"""Seconds after which a child gives up with `GAVE_UP`."""
GAVE_UP = 3


class Orders(msgspec.Struct, frozen=True):
    """What a child is to do; its one argument, as JSON."""

    mode: Literal["publish", "work", "hang"]
    opener: str
    """``module:callable``; called with `url`, it gives a broker (or a coroutine for one)."""
    url: str
    source: Source
    ledger: str
    """A file to which a line is added: the id of each message handled (or begun, in `hang`)."""
    lease: float = 1.0
    slots: int = 8
    names: tuple[str, ...] = ()
    """Of the messages to publish."""


async def obey(orders: Orders) -> int:
    """Do what was ordered; the exit code."""
    module, _, name = orders.opener.partition(":")
    opener = cast(
        "Callable[[str], Broker | Awaitable[Broker]]",
        getattr(importlib.import_module(module), name),
    )
    opened = opener(orders.url)
    broker = await opened if inspect.isawaitable(opened) else opened
    try:
        if orders.mode != "publish":
            return await _work(broker, orders)
        topic = orders.source.topic
        for each in orders.names:
            await broker.publish(
                [Message(id=each, source="child", type=topic, topic=topic, body=each.encode())]
            )
        return 0
    finally:
        await broker.close()


async def _work(broker: Broker, orders: Orders) -> int:
    clock = AsyncioClock()
    tasks = AsyncioTasks(_failed)

    async def handle(work: Work) -> Outcome:
        if orders.mode == "hang":
            _write(orders.ledger, work.id)
            await asyncio.Event().wait()
        await clock.sleep(PAUSE)
        if work.value == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        _write(orders.ledger, work.id)
        return DONE

    worker = Worker(
        broker,
        Subscription(
            source=orders.source,
            contract=Event(orders.source.topic, bytes),
            service=orders.source.group,
            handler=f"{__name__}.handle",
            run=handle,
            slots=orders.slots,
            lease=orders.lease,
        ),
        ports=Ports(
            clock=clock, dice=system_dice, new_id=Ids(), observer=Silent(), failpoints=nowhere
        ),
        tasks=tasks,
    )
    await worker.start()
    end = clock.now() + PATIENCE
    code = GAVE_UP
    while clock.now() < end:
        lag = await broker.lag(orders.source)
        if not lag.ready + lag.leased + lag.delayed:
            code = 0
            break
        await clock.sleep(LOOK)
    await worker.drain(clock.now() + DRAIN)
    await tasks.close()
    return code


def _write(ledger: str, name: str) -> None:
    """Add a line that outlives the process, whatever kills it."""
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, f"{name}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)


def _failed(name: str, error: BaseException) -> None:
    sys.stderr.write(f"{name} failed: {error!r}\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(obey(msgspec.json.decode(sys.argv[1], type=Orders))))
