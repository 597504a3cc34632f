"""The programs that the chaos tests kill: a worker and a publisher, each a real process.

Run as ``python chaos_programs.py work|publish FOLDER``. What they begin and end they write to
files of their own in FOLDER; `os.write` survives a SIGKILL of the process.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from callcast import Bus, Event, Service, Struct, Transaction

PUBLISHERS = 20


class Job(Struct):
    number: int


JOBS = Event("chaos.jobs", Job)

worker = Service(
    "chaos",
    schema=["create table if not exists effects(number integer, process integer, run integer)"],
)


def broker_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'broker.db'}"


def line_file(folder: Path, name: str) -> int:
    return os.open(folder / f"{name}-{os.getpid()}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)


async def work(folder: Path) -> None:
    """Handle jobs until killed; 5 to 20 ms of each are spent inside the open transaction."""
    attempts = line_file(folder, "attempts")

    @worker.on(JOBS)
    async def handle(job: Job, tx: Transaction) -> None:
        os.write(attempts, f"begin {job.number}\n".encode())
        await tx.execute("insert into effects values (?, ?, 0)", job.number, os.getpid())
        await asyncio.sleep(random.uniform(0.005, 0.020))
        os.write(attempts, f"end {job.number}\n".encode())

    async with Bus(broker_url(folder), services=[worker]):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def publish(folder: Path) -> None:
    """Publish until killed; an id goes to the fsynced file only after `publish` returned."""
    begun, confirmed = line_file(folder, "begun"), line_file(folder, "confirmed")

    async with Bus(broker_url(folder), name="publisher") as bus:
        print("ready", flush=True)

        async def one(lane: int) -> None:
            number = 0
            while True:
                id_ = f"{os.getpid()}-{lane}-{number}"
                os.write(begun, f"{id_}\n".encode())
                await bus.publish(JOBS, Job(number), id=id_)
                os.write(confirmed, f"{id_}\n".encode())
                os.fsync(confirmed)
                number += 1

        await asyncio.gather(*(one(lane) for lane in range(PUBLISHERS)))


if __name__ == "__main__":
    program = {"work": work, "publish": publish}[sys.argv[1]]
    asyncio.run(program(Path(sys.argv[2])))
