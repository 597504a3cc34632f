"""A worker in a process of its own: `python worker_process.py FILE LEDGER LEASE ACT`.

Each message's body is what its handler does, besides writing its begin and end to the ledger:
``quick``, ``block:SECONDS`` (the loop, not only itself), ``hold`` (for ever), ``kill`` (itself).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import uuid

from callcast.brokers.sqlite import SqliteBroker
from callcast.core.contract import Event
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Work
from callcast.policies.silent import Silent
from callcast.ports.broker import Source
from callcast.ports.failpoints import nowhere
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription
from callcast.runtime.tasks import AsyncioTasks
from callcast.runtime.worker import Worker

SOURCE = Source("orders", "mail")


class Ledger:
    """Lines in a file, each on the disk before the next thing happens."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, word: str, name: str) -> None:
        os.write(self._file, f"{word} {name} {os.getpid()}\n".encode())
        os.fsync(self._file)


async def main(path: str, ledger_path: str, lease: float) -> None:
    ledger = Ledger(ledger_path)
    clock = AsyncioClock()

    async def run(work: Work) -> Outcome:
        ledger.write("begin", work.id)
        act, _, seconds = bytes(work.value).decode().partition(":")  # type: ignore[arg-type]
        if act == "block":
            time.sleep(float(seconds))
        elif act == "hold":
            await asyncio.Event().wait()
        elif act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        ledger.write("end", work.id)
        return DONE

    ports = Ports(
        clock=clock,
        dice=random.random,
        new_id=lambda: uuid.uuid4().hex,
        observer=Silent(),
        failpoints=nowhere,
    )
    tasks = AsyncioTasks(lambda name, error: print(f"{name}: {error!r}", flush=True))
    broker = SqliteBroker(path, clock=clock)
    subscription = Subscription(
        source=SOURCE,
        contract=Event("orders", bytes),
        service="mail",
        handler="worker_process.run",
        run=run,
        lease=lease,
    )
    worker = Worker(broker, subscription, ports=ports, tasks=tasks)
    await worker.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    await worker.drain(clock.now() + 1)
    await tasks.close()
    await broker.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
