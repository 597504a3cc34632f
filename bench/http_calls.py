"""HTTP calls: callcast with all default policies against raw aiohttp and a stack of libraries.

The same POST of a small JSON body, 64 at a time, on kept connections, answered by the cheapest
server there can be (a fixed response, in a process of its own), so that what is measured is the
client. Contenders take turns in many short rounds, because the speed of a shared machine changes
within a second; the median of the rounds' ratios counts.

    python bench/http_calls.py [--rounds 150] [--calls 256] [--quick]

Goals: at most 1.3 times the CPU time of raw aiohttp, at least 4 times the throughput of httpx2
with stamina and circuitbreaker. Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import circuitbreaker
import httpx2
import msgspec
import stamina
from harness import Figure, Goal, Report, versions

from callcast import Bus, Operation

CONCURRENT = 64
STOCK = Operation("inventory.stock", request=str, response=int, idempotent=True, deadline=5.0)
PATH = "/callcast/inventory.stock"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n7"

Call = Callable[[], Awaitable[None]]


class Fixed(asyncio.Protocol):
    """Answers whatever comes; requests here are smaller than one packet."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data:  # the head: a body in a packet of its own is no second request
            self.transport.write(ANSWER)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


@asynccontextmanager
async def raw_aiohttp(url: str) -> AsyncIterator[Call]:
    """What a careful user writes without any policy."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(int).decode
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:

        async def call() -> None:
            async with session.post(url + PATH, data=encode("tea"), headers=headers) as response:
                decode(await response.read())

        yield call


@asynccontextmanager
async def with_callcast(url: str) -> AsyncIterator[Call]:
    """Deadline, retry with budget, breaker, bulkhead, attempt timeout, ids, typed decode."""
    async with Bus("memory://", name="bench", peers={"inventory": url}) as bus:

        async def call() -> None:
            await bus.call(STOCK, "tea")

        yield call


@asynccontextmanager
async def with_stack(url: str) -> AsyncIterator[Call]:
    """The libraries people put together: fewer policies, and each with its own clock."""
    decode = msgspec.json.Decoder(int).decode
    limits = httpx2.Limits(max_connections=CONCURRENT, max_keepalive_connections=CONCURRENT)
    async with httpx2.AsyncClient(base_url=url, timeout=5.0, limits=limits) as client:

        @stamina.retry(on=httpx2.HTTPError, attempts=3, timeout=5.0)
        @circuitbreaker.circuit(failure_threshold=5, recovery_timeout=30)
        async def guarded() -> int:
            response = await client.post(PATH, json="tea")
            response.raise_for_status()
            return decode(response.content)

        async def call() -> None:
            await guarded()

        yield call


CONTENDERS = {"raw aiohttp": raw_aiohttp, "callcast": with_callcast, "stack": with_stack}


async def timed(call: Call, calls: int) -> tuple[float, float]:
    """Microseconds per call: wall time, CPU time of this process."""
    each = calls // CONCURRENT

    async def caller() -> None:
        for _ in range(each):
            await call()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(CONCURRENT)))
    scale = 1e6 / (each * CONCURRENT)
    return (time.perf_counter() - wall) * scale, (time.process_time() - cpu) * scale


async def measure(url: str, rounds: int, calls: int) -> dict[str, dict[str, list[float]]]:
    figures: dict[str, dict[str, list[float]]] = {
        name: {"wall_us": [], "cpu_us": []} for name in CONTENDERS
    }
    async with AsyncExitStack() as stack:
        calling = {
            name: await stack.enter_async_context(contender(url))
            for name, contender in CONTENDERS.items()
        }
        for call in calling.values():  # connections, caches
            await timed(call, CONCURRENT)
        for _ in range(rounds):
            for name, call in calling.items():
                wall, cpu = await timed(call, calls)
                figures[name]["wall_us"].append(wall)
                figures[name]["cpu_us"].append(cpu)
    return figures


def told(figures: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> Report:
    """Figures, ratios within a round, and goals."""
    report = Report(
        "http_calls",
        "us",
        versions("callcast", "aiohttp", "httpx2", "stamina", "circuitbreaker"),
        {"calls": options.calls, "concurrent": CONCURRENT, "clock": "wall, and CPU of the process"},
    )
    for name, both in figures.items():
        for clock in ("cpu", "wall"):
            report.figures[f"{name}: {clock}"] = Figure(both[f"{clock}_us"])
    cpu = report.ratio("callcast: cpu", "raw aiohttp: cpu").median
    wall = report.ratio("stack: wall", "callcast: wall").median
    report.goals = [
        Goal("HTTP call, all policies, CPU time: raw aiohttp", cpu, "<=", 1.3, "x"),
        Goal("HTTP call, throughput: httpx2 + stamina + circuitbreaker", wall, ">=", 4.0, "x"),
    ]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--calls", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.calls = 2, CONCURRENT
    if options.serve:
        asyncio.run(serve(options.serve))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            url = f"http://127.0.0.1:{port}"
            figures = asyncio.run(measure(url, options.rounds, options.calls))
        finally:
            server.kill()
    report = told(figures, options)
    if not options.quick:
        return report.finish()
    with tempfile.TemporaryDirectory() as nowhere:
        report.finish(Path(nowhere))
    return 0


if __name__ == "__main__":
    sys.exit(main())
