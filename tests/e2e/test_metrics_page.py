"""`/metrics` of a service: what Prometheus reads, and what it says where nothing can write it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from servers import tool

PROGRAM = """
import asyncio, sys, urllib.error, urllib.request
from callcast import Bus, Event, Operation, Service
from callcast.runtime import registry
from callcast.cli.run import listener

if "without" in sys.argv:
    sys.modules["opentelemetry.exporter.prometheus"] = None
if "theirs" in sys.argv:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    metrics.set_meter_provider(MeterProvider())

ASK = Operation("shop.ask", str, int, idempotent=True)
TOLD = Event("shop.told", str, key=lambda text: text)
shop = Service("shop")

@shop.serves(ASK)
async def ask(text: str) -> int:
    return len(text)

@shop.on(TOLD)
async def told(text: str) -> None: ...

def get(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()

async def main():
    bus = Bus("memory://", services=[shop])
    socket = listener("127.0.0.1", 0)
    server = registry.http_server(bus.asgi(), socket)
    serving = asyncio.ensure_future(server.serve())
    url = f"http://127.0.0.1:{socket.getsockname()[1]}/metrics"
    async with bus:
        await asyncio.to_thread(get, url)  # from now on it is measured
        await asyncio.sleep(1.1)  # within a second the bus has found it
        for number in range(10_000 if "many" in sys.argv else 3):
            await bus.publish(TOLD, f"key-{number}")
            if number % 1000 == 0:
                await bus.call(ASK, f"id-{number}")
        await bus.idle()
        status, kind, text = await asyncio.to_thread(get, url)
    server.stop()
    await serving
    print(status, kind)
    print(text)

asyncio.run(main())
"""


def page(folder: Path, *how: str) -> tuple[str, str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *how],
        cwd=folder, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    first, _, rest = ran.stdout.partition("\n")
    return first, rest


def test_it_has_calls_and_messages_and_ten_thousand_keys_are_no_labels(tmp_path: Path) -> None:
    first, text = page(tmp_path, "many")
    assert first.startswith("200 text/plain")
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert {
        "callcast_call_duration_seconds",
        "http_server_request_duration_seconds",
        "messaging_process_duration_seconds",
        "messaging_client_sent_messages",
        "callcast_queue_time_seconds",
        "target_info",
    } <= set(families)
    sent = families["messaging_client_sent_messages"].samples
    assert sum(one.value for one in sent if one.name.endswith("_total")) == 10_000
    assert sum(len(family.samples) for family in families.values()) < 500
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert "key-9999" not in text
    assert "id-9000" not in text


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    first, text = page(tmp_path, "without")
    assert first == "501 application/problem+json"
    assert json.loads(text)["detail"].endswith("pip install 'callcast[otel]'")


def test_where_the_program_has_a_provider_of_its_own_it_says_so(tmp_path: Path) -> None:
    first, text = page(tmp_path, "theirs")
    assert first == "501 application/problem+json"
    assert "a provider of metrics of its own" in json.loads(text)["detail"]
