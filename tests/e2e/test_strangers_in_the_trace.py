"""A service of another make in the middle, with OpenTelemetry's own instrumentation: one trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shop_parts import fetched, until

from callcast.cli.demo.house import free_ports

MIDDLE = """
import sys
from aiohttp import ClientSession, web
from opentelemetry import trace
from opentelemetry.exporter.zipkin.json import ZipkinExporter
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

port, behind, zipkin = sys.argv[1:]
provider = TracerProvider(resource=Resource.create({"service.name": "middle"}))
exporter = ZipkinExporter(endpoint=f"{zipkin}/api/v2/spans")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
AioHttpServerInstrumentor().instrument()
AioHttpClientInstrumentor().instrument()

async def answer(request):
    async with ClientSession() as session:
        async with session.post(f"{behind}/callcast/behind.ask", json="x") as found:
            return web.json_response(await found.json())

app = web.Application()
app.router.add_post("/callcast/middle.ask", answer)
web.run_app(app, host="127.0.0.1", port=int(port), print=None)
"""

BEHIND = """
import asyncio, sys
from callcast import Bus, Operation, Service
from callcast.cli.run import listener, serve

behind = Service("behind")

@behind.serves(Operation("behind.ask", str, int, idempotent=True))
async def ask(text: str) -> int:
    return len(text)

asyncio.run(serve(Bus("memory://", services=[behind]), listener("127.0.0.1", int(sys.argv[1]))))
"""

FRONT = """
import asyncio, sys, time
from callcast import Bus, CallcastError, Operation

ASK = Operation("middle.ask", str, int, idempotent=True, deadline=20.0)

async def main():
    async with Bus("memory://", name="front", peers={"middle": sys.argv[1]}) as bus:
        for _ in range(200):  # the others may not be up yet
            try:
                print(await bus.call(ASK, "x"))
                return
            except CallcastError:
                await asyncio.sleep(0.2)

asyncio.run(main())
"""


@pytest.mark.timeout(400)
def test_it_breaks_nothing_and_no_span_appears_twice(tmp_path: Path, zipkin_url: str) -> None:
    to_middle, to_behind = free_ports(2)
    environment = {**os.environ, "CALLCAST_TRACES": zipkin_url.replace("http:", "zipkin:")}
    environment |= {"OTEL_BSP_SCHEDULE_DELAY": "200"}
    started = [
        subprocess.Popen([sys.executable, "-c", *arguments], cwd=tmp_path, env=environment)
        for arguments in (
            (MIDDLE, str(to_middle), f"http://127.0.0.1:{to_behind}", zipkin_url),
            (BEHIND, str(to_behind)),
        )
    ]
    try:
        ran = subprocess.run(
            [sys.executable, "-c", FRONT, f"http://127.0.0.1:{to_middle}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert ran.stdout == "1\n", ran.stderr
        trace = until(lambda: whole(zipkin_url), "the trace is not whole")
    finally:
        for process in started:
            process.terminate()
            process.wait(60)
    seen = [(span["localEndpoint"]["serviceName"], span.get("kind", "")) for span in trace]
    assert sorted(seen) == [
        ("behind", "SERVER"),
        ("front", ""),
        ("front", "CLIENT"),
        ("middle", "CLIENT"),
        ("middle", "SERVER"),
    ]
    by_id = {span["id"]: span for span in trace}
    assert len(by_id) == len(trace)
    parents = {
        span["localEndpoint"]["serviceName"] + span.get("kind", ""): by_id[span["parentId"]]
        for span in trace
        if "parentId" in span
    }
    assert parents["behindSERVER"]["localEndpoint"]["serviceName"] == "middle"
    assert parents["middleSERVER"]["localEndpoint"]["serviceName"] == "front"


def whole(zipkin_url: str) -> list[Any] | None:
    """The first trace that the service behind is in, with all of its spans."""
    found: Any = fetched(f"{zipkin_url}/api/v2/traces?serviceName=behind&limit=10")
    return next((trace for trace in found or [] if len(trace) >= 5), None)
