"""Publishers and consumers that write down their history: what the failure tests judge.

As a program it is one consumer: ``python history_parts.py URL TOPIC ORDER FOLDER``; it says
``ready`` when it consumes, and drains at a SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from callcast import (
    Bus,
    CircuitBreaker,
    Context,
    Event,
    NotSent,
    Policy,
    Service,
    Settings,
    Struct,
    Unanswered,
)
from callcast.testing.history import Entry, How, Op, line

GROUP = "faults"
ORDERED, PLAIN = "ordered", "plain"
PATIENCE = 30.0
"""Seconds for what must come true once nothing is wrong any more; only a failure takes so long."""
PUBLISH_WAIT = 2.0
"""Seconds after which a publish ends with an error, at the latest."""
AGAIN = 0.05
"""Seconds between a publish that failed and its repeat."""
WORK = 0.005
"""Seconds of a handler, so that a fault finds some of them at work."""
SETTINGS = Settings(
    policy=Policy(breaker=CircuitBreaker(wait=0.2, wait_max=0.5)),
    kill_switch_wait=0.5,
    publish_deadline=PUBLISH_WAIT,
    drain=5.0,
)
"""As everywhere, but after an outage of seconds nobody waits for half a minute."""


class Told(Struct):
    producer: str
    number: int


def event(topic: str, order: str) -> Event[Told]:
    """What is published: in the order of each producer, or in none."""
    return Event(topic, Told, key=(lambda told: told.producer) if order == ORDERED else None)


class Scribe:
    """Writes history to a file of its own; `os.write` survives a SIGKILL of the process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = f"{name}-{os.getpid()}"
        self._file = os.open(
            folder / f"{self.name}.history", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600
        )

    def write(self, op: Op, told: Told, how: How = "ok") -> None:
        is_publish = op == "publish"
        entry = Entry(
            told.producer if is_publish else self.name,
            op,
            id_of(told),
            type=how,
            mono=time.monotonic(),
            group="" if is_publish else GROUP,
            key=told.producer,
            key_seq=told.number,
        )
        os.write(self._file, line(entry))

    def close(self) -> None:
        os.close(self._file)


def id_of(told: Told) -> str:
    return f"{told.producer}-{told.number}"


class Producers:
    """Publish one message after the other, each again under its id until it is acknowledged."""

    def __init__(self, bus: Bus, what: Event[Told], scribe: Scribe) -> None:
        self.acknowledged = 0
        self.failures = 0
        """Publishes that ended with an error, each repeated."""
        self.slowest = 0.0
        """Seconds of the longest publish, however it ended."""
        self.go_on = asyncio.Event()
        """While it is clear, nobody begins another message; who has begun one goes on trying."""
        self.go_on.set()
        self._bus = bus
        self._what = what
        self._scribe = scribe

    async def publish(self, producer: str, count: int, pause: float = 0.0) -> None:
        for number in range(count):
            await self.go_on.wait()
            await self._publish(Told(producer, number))
            await asyncio.sleep(pause)

    async def publish_until(self, stop: asyncio.Event, producer: str, pause: float) -> None:
        number = 0
        while not stop.is_set():
            await self._publish(Told(producer, number))
            await asyncio.sleep(pause)
            number += 1

    async def _publish(self, told: Told) -> None:
        while True:
            self._scribe.write("publish", told, "invoke")
            began = time.monotonic()
            try:
                await self._bus.publish(self._what, told, id=id_of(told))
            except NotSent:
                self._scribe.write("publish", told, "fail")
            except Unanswered:
                self._scribe.write("publish", told, "info")
            else:
                self._scribe.write("publish", told, "ok")
                self.acknowledged += 1
                return
            finally:
                self.slowest = max(self.slowest, time.monotonic() - began)
            self.failures += 1
            await asyncio.sleep(AGAIN)


@asynccontextmanager
async def producing(url: str, what: Event[Told], folder: Path) -> AsyncIterator[Producers]:
    """Producers on a bus of their own."""
    scribe = Scribe(folder, "producers")
    try:
        async with Bus(url, name="producers", settings=SETTINGS) as bus:
            yield Producers(bus, what, scribe)
    finally:
        scribe.close()


@asynccontextmanager
async def consuming(url: str, what: Event[Told], folder: Path) -> AsyncIterator[Bus]:
    """A consumer, here."""
    scribe = Scribe(folder, "consumer")
    service = Service(GROUP)
    begun = os.open(folder / f"{scribe.name}.begun", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    @service.on(what)
    async def hear(told: Told, context: Context) -> None:
        assert context.message_id == id_of(told)
        os.write(begun, b"+")
        await asyncio.sleep(WORK)
        scribe.write("effect", told)
        os.write(begun, b"-")

    try:
        async with Bus(url, services=[service], settings=SETTINGS) as bus:
            yield bus
    finally:
        os.close(begun)
        scribe.close()


async def main(url: str, topic: str, order: str, folder: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with consuming(url, event(topic, order), Path(folder)):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
