"""`callcast exporter`: what waits at a broker, as Prometheus reads it; promtool finds no fault."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import tool

from callcast.brokers.sqlite import SqliteBroker
from callcast.core.message import Message
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(90)


@contextmanager
def exporting(broker: str, folder: Path) -> Iterator[str]:
    """The address of its page; it ends by SIGTERM, in peace."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "exporter", "--broker", broker, "--port", "0"],
        cwd=folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.readline()
    assert '"ready"' in said, said + process.stderr.read()
    yield f"http://127.0.0.1:{json.loads(said)['port']}/metrics"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


PROGRAM = """
import logging
from callcast.cli import main
from callcast.telemetry.logs import install

logging.getLogger("callcast").setLevel(logging.INFO)
install(as_json=True)
main()
"""


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        text: str = answer.read().decode()
    return text


async def test_all_groups_are_on_its_page(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    broker = SqliteBroker(path, clock=AsyncioClock())
    await broker.ensure([], [Source("placed", "mail"), Source("placed", "pack")])
    await broker.publish([Message(f"m{n}", "shop", "placed", "placed", b"{}") for n in range(3)])
    with exporting(f"sqlite:///{path}", tmp_path) as url:
        text = page(url)
    await broker.close()
    found = {
        (one.name, one.labels.get("messaging_consumer_group_name")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert found["callcast_broker_up", None] == 1
    for group in ("mail", "pack"):
        assert found["callcast_queue_depth", group] == 3
        assert found["callcast_consumer_lag", group] == 3
        assert found["callcast_consumer_lag_time_seconds", group] >= 0
        assert found["callcast_dlq_depth", group] == 0
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
