"""Traces of callers that speak B3: read and written when OTEL_PROPAGATORS asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRACE = "0af7651916cd43dd8448eb211c80319c"
SINGLE = {"b3": f"{TRACE}-b7ad6b7169203331-1"}
MULTI = {"X-B3-TraceId": TRACE, "X-B3-SpanId": "b7ad6b7169203331", "X-B3-Sampled": "1"}
OTHER = {"X-B3-TraceId": "f" * 32, "X-B3-SpanId": "b7ad6b7169203331", "X-B3-Sampled": "1"}

PROGRAM = """
import asyncio, sys, os, json, urllib.request
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
out=InMemorySpanExporter(); p=TracerProvider(); p.add_span_processor(SimpleSpanProcessor(out)); trace.set_tracer_provider(p)
from callcast import Bus, Event, Operation, Service, Context
from callcast.runtime import registry
from callcast.cli.run import listener
ASK = Operation("shop.ask", str, int, idempotent=True)
TOLD = Event("shop.told", str)
shop = Service("shop"); seen=[]
@shop.serves(ASK)
async def ask(text: str, bus: Bus, ctx: Context) -> int:
    seen.append(dict(ctx.headers)); await bus.publish(TOLD, text); return 1
@shop.on(TOLD)
async def told(text: str, ctx: Context) -> None: seen.append(dict(ctx.headers))
async def main():
    bus = Bus("memory://", services=[shop]); s=listener("127.0.0.1",0)
    server = registry.http_server(bus.asgi(), s); serving=asyncio.ensure_future(server.serve())
    async with bus:
        r=urllib.request.Request(f"http://127.0.0.1:{s.getsockname()[1]}/callcast/shop.ask", b'"x"', method="POST", headers={"content-type": "application/json", **json.loads(sys.argv[1])})
        await asyncio.to_thread(lambda: urllib.request.urlopen(r).read())
        await bus.idle()
    server.stop(); await serving
    print(json.dumps([[one.name, f"{one.context.trace_id:032x}"] for one in out.get_finished_spans()]))
    print(json.dumps(seen[-1]))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("propagators", "sent", "written"),
    [
        ("tracecontext,baggage,b3", SINGLE, {"traceparent", "b3"}),
        ("b3", SINGLE, {"b3"}),
        ("b3", {**OTHER, **SINGLE}, {"b3"}),  # the single header wins
        ("b3multi", MULTI, {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}),
    ],
)
def test_a_trace_goes_on_through_call_and_message(
    propagators: str, sent: dict[str, str], written: set[str], tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sent)],
        cwd=tmp_path, env={**os.environ, "OTEL_PROPAGATORS": propagators},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    spans, headers = (json.loads(line) for line in ran.stdout.splitlines())
    assert dict(spans).keys() >= {
        "POST /callcast/shop.ask", "publish shop.told", "process shop.told",
    }  # fmt: skip
    assert {trace for _, trace in spans} == {TRACE}
    assert {name.lower() for name in headers} == written
