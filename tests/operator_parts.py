"""Parts for tests of the operator's commands: a module with services to name, and how to run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path

from click.testing import CliRunner, Result

from callcast.cli.app import main
from callcast.core.contract import Event
from callcast.ports.broker import Broker
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

MODULE = '''
from callcast import Bus, Event, Operation, Refused, Service

PLACED = Event("{topic}", str, key=lambda order: order.partition("-")[0])
REMIND = Operation("{prefix}mail.remind", request=str, response=None, idempotent=True,
                   service="{prefix}mail")
ASK = Operation("{prefix}mail.ask", request=str, response=str, service="{prefix}mail")

mail = Service("{prefix}mail")
stock = Service("{prefix}stock")
plain = Service("{prefix}plain")
done = []


@mail.on(PLACED)
async def send(order: str) -> None:
    done.append(order)


@mail.serves(REMIND)
async def remind(order: str) -> None:
    done.append(order)


@mail.serves(ASK)
async def ask(order: str) -> str:
    return order


@stock.on(PLACED)
async def pack(order: str) -> None:
    if order.startswith("piano"):
        raise Refused(f"no box fits {{order!r}}")


async def publish(url, *orders, services=()):
    """Publish in one run of a bus, and let these services handle it."""
    async with Bus(url, services=services, name="{prefix}shop") as bus:
        for order in orders:
            await bus.publish(PLACED, order, id=f"m-{{order}}")
        await bus.idle()
'''


def write_module(
    folder: Path, name: str, *, topic: str = "orders.placed", prefix: str = ""
) -> None:
    """A module ``name`` in that folder, whose names start with `prefix`."""
    (folder / f"{name}.py").write_text(MODULE.format(topic=topic, prefix=prefix))


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def records(*args: str, code: int = 0) -> list[dict[str, object]]:
    """What a command says in JSON."""
    result = run(*args, "-o", "json")
    assert result.exit_code == code, result.stderr
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def on_broker(url: str, work: Callable[[Broker], Coroutine[object, object, object]]) -> None:
    """Do something at the broker itself."""

    async def open_and_work() -> None:
        broker = registry.open_broker(url, AsyncioClock())
        try:
            await work(broker)
        finally:
            await broker.close()

    asyncio.run(open_and_work())


OTHERS = Event("others.said", str)
"""An event of somebody else's, for brokers that are not empty."""
