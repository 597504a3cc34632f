"""A real process at work on a broker's file: ``python sqlite_child.py MODE PATH [ARGUMENTS]``."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from callcast.brokers.sqlite import SqliteBroker
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock

SOURCE = Source("t", "g")
ORDERED = Source("o", "g", ordered=True)


def broker_at(path: str | Path, **more: object) -> SqliteBroker:
    return SqliteBroker(path, clock=AsyncioClock(), **more)  # type: ignore[arg-type]


def message(name: str, *, topic: str = "t", body: bytes = b"x" * 256, **more: object) -> Message:
    return Message(name, "test", topic, topic, body, **more)  # type: ignore[arg-type]


def start(mode: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a child; it prints a line when it is where the mode says."""
    return subprocess.Popen(
        [sys.executable, __file__, mode, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def line(child: subprocess.Popen[str]) -> str:
    """The next line that a child prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def end(child: subprocess.Popen[str], *, kill: bool = False) -> int:
    """Wait for a child, or kill it with SIGKILL; how it ended."""
    if kill:
        child.kill()
    rest, _ = child.communicate(timeout=50)
    assert rest is not None
    return child.returncode


def say(text: object) -> None:
    print(text, flush=True)


async def publish(path: str, name: str, count: str) -> None:
    """Publish so many messages one by one; every acknowledged one is printed."""
    broker = broker_at(path)
    for number in range(int(count)):
        await broker.publish([message(f"{name}-{number}")])
        say(f"{name}-{number}")
    await broker.close()


async def batches(path: str) -> None:
    """Publish batches of 100 for ever; print the number of each when it is acknowledged."""
    broker = broker_at(path)
    number = 0
    while True:
        await broker.publish([message(f"{number}-{one}") for one in range(100)])
        say(number)
        number += 1


async def hold(path: str, limit: str, lease: str) -> None:
    """Fetch and never settle."""
    broker = broker_at(path)
    consumer = await broker.consume(SOURCE, lease=float(lease))
    say(len(await consumer.fetch(int(limit), 10.0)))
    await asyncio.Event().wait()


async def fork_and_hold(path: str) -> None:
    """Fetch, then fork a child that lives on; print its process id."""
    broker = broker_at(path)
    consumer = await broker.consume(SOURCE, lease=600.0)
    await consumer.fetch(1, 10.0)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    say(pid)
    await asyncio.Event().wait()


async def fork_and_publish(path: str) -> None:
    """Fork a child that publishes until SIGTERM, then prints how often; print its process id."""
    broker = broker_at(path)
    await broker.ensure([], [SOURCE])
    pid = os.fork()
    if pid:
        say(pid)
        await asyncio.Event().wait()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    asyncio.events._set_running_loop(None)  # the parent's loop is not ours

    async def work() -> None:
        count = 0
        while not ended:
            await broker.publish([message("child")])
            count += 1
        await broker.close()
        say(count)

    asyncio.run(work())
    os._exit(0)


async def block(path: str, lease: str, leases: str) -> None:
    """Fetch, block the loop for so many leases while a thread renews, settle, print how it went."""
    broker = broker_at(path)
    consumer = await broker.consume(SOURCE, lease=float(lease))
    held = await consumer.fetch(10, 10.0)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(float(lease) / 3):
            consumer.renew(held)

    thread = threading.Thread(target=renew)
    thread.start()
    say(len(held))
    time.sleep(float(lease) * float(leases))  # the handler that blocks the loop
    ended.set()
    thread.join()
    await consumer.settle([(one, DONE) for one in held])
    await broker.close()
    say("settled")


async def drain(path: str, lease: str) -> None:
    """Handle messages until nothing comes for two seconds; print each id."""
    broker = broker_at(path)
    consumer = await broker.consume(SOURCE, lease=float(lease))
    while taken := await consumer.fetch(20, 2.0):
        for one in taken:
            say(one.message.id)
        await consumer.settle([(one, DONE) for one in taken])
    await broker.close()


async def echo(path: str) -> None:
    """Send each message of one topic on to another, one by one."""
    broker = broker_at(path)
    consumer = await broker.consume(Source("ping", "g"))
    say("ready")
    while True:
        for one in await consumer.fetch(1, 60.0):
            await broker.publish([message(one.message.id, topic="pong")])
            await consumer.settle([(one, DONE)])


async def idle(path: str, seconds: str) -> None:
    """Wait for messages on many sources; print the processor seconds used."""
    broker = broker_at(path)
    sources = [Source(f"idle{number}", "g") for number in range(20)]
    await broker.ensure([], sources)
    consumers = [await broker.consume(source) for source in sources]

    async def wait(number: int) -> None:
        until = time.monotonic() + float(seconds) + 1.0
        while time.monotonic() < until:
            await consumers[number].fetch(10, 1.0)

    waiting = [asyncio.ensure_future(wait(number)) for number in range(len(consumers))]
    await asyncio.sleep(1.0)
    before = time.process_time()
    await asyncio.sleep(float(seconds))
    say(time.process_time() - before)
    await asyncio.gather(*waiting)
    await broker.close()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
