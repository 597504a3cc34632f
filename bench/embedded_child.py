"""The other process of ``bench/embedded.py``: a worker that prints what it saw as JSON.

``python bench/embedded_child.py PART FOLDER NUMBER``: `PART` is callcast or huey (milliseconds
from publish to handler of `NUMBER` messages), idle (share of one core over `NUMBER` seconds) or
memory (peak memory in MiB and messages a second over `NUMBER` messages).
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

from embedded_callcast import PLACED, Case, url
from embedded_peers import HUEY_POLL, open_huey
from harness import peak_memory
from work import Count, Order, decode

from callcast import Bus, Service


def ready() -> None:
    print("ready", flush=True)


def late(order: Order) -> float:
    return (time.monotonic_ns() - order.sent_ns) / 1e6


async def callcast(path: Path, count: int) -> list[float]:
    seen: list[float] = []
    is_over = asyncio.Event()
    service = Service("warehouse")

    @service.on(PLACED, group="g0")
    async def handle(order: Order) -> None:
        seen.append(late(order))
        if len(seen) == count:
            is_over.set()

    async with Bus(url(path), services=[service]):
        ready()
        await is_over.wait()
    return seen


def on_huey(path: Path, count: int) -> list[float]:
    queue = open_huey(path)
    seen: list[float] = []
    is_over = threading.Event()

    @queue.task(name="handle")
    def handle(body: bytes) -> None:
        seen.append(late(decode(body)))
        if len(seen) == count:
            is_over.set()

    consumer = queue.create_consumer(
        workers=1, periodic=False, initial_delay=HUEY_POLL, max_delay=HUEY_POLL
    )
    consumer.start()
    ready()
    is_over.wait()
    consumer.stop(graceful=True)
    return seen


async def idle(path: Path, seconds: int) -> list[float]:
    async with Bus(url(path), services=[Case().service(Count(0))]):
        await asyncio.sleep(1.0)  # what belongs to the start
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        return [(time.process_time() - cpu) / (time.perf_counter() - start)]


async def memory(path: Path, count: int) -> list[float]:
    counted = Count(count)
    async with Bus(url(path), services=[Case().service(counted)]):
        await counted.is_over.wait()
        counted.watch.stop()
    return [peak_memory(), count / counted.watch.wall]


def main() -> int:
    part, path, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if part == "huey":
        seen = on_huey(path, number)
    else:
        asynchronous = {"callcast": callcast, "idle": idle, "memory": memory}
        seen = asyncio.run(asynchronous[part](path, number))
    print(json.dumps(seen), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
