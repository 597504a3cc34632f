"""The shop as five processes on a broker, as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from operator_parts import run

from callcast.cli.demo.house import free_ports

ROOT = Path(__file__).parents[1]
NAMES = ("orders", "inventory", "payments", "fulfilment", "notifications")
NOT_FOUND = 404
WITHIN = 150.0
"""Seconds for anything that must happen: far more than it takes."""

T = TypeVar("T")


@contextmanager
def shop(folder: Path, broker: str, **environment: str) -> Iterator[Mapping[str, str]]:
    """Its addresses by service; the groups are gone afterwards."""
    urls = {
        name: f"http://127.0.0.1:{port}"
        for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)
    }
    databases = {"CALLCAST_DATABASE": f"sqlite:///{folder}/{{service}}.db"}
    examples = str(ROOT / "examples")
    peers = [f"--peer={name}={url}" for name, url in urls.items()]
    with ExitStack() as stack:
        for name, url in urls.items():
            command = [sys.executable, "-m", "callcast", "run", f"shop.{name}:service"]
            command += ["--broker", broker, "--port", url.rpartition(":")[2]]
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            process = subprocess.Popen(
                [*command, *(each for each in peers if not each.startswith(f"--peer={name}="))],
                cwd=folder,
                env={**os.environ, **databases, "PYTHONPATH": examples, **environment},
                stdout=log,
                stderr=log,
            )
            stack.callback(_end, process)
        for name, url in urls.items():
            until(lambda url=url: _answers(f"{url}/readyz"), f"{name} is not ready")
        yield urls
    for name in NAMES:
        run("topology", "retire", name, "--yes", "--broker", broker)


def buy(orders: str, number: str, sku: str = "tea", **headers: str) -> None:
    """Place one order, as a browser does."""
    body = json.dumps({"id": number, "sku": sku, "quantity": 1, "cents": 450}).encode()
    request = urllib.request.Request(f"{orders}/orders", body, method="POST")
    said = {"Content-Type": "application/json", "Idempotency-Key": f'"{number}"', **headers}
    for name, value in said.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=WITHIN) as answer:
        assert answer.status == 200


def fetched(url: str) -> object:
    """The JSON that is there; None when there is nothing."""
    try:
        with urllib.request.urlopen(url, timeout=WITHIN) as answer:
            found: object = json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != NOT_FOUND:
            raise
        return None
    return found


def until(found: Callable[[], T | None], otherwise: str) -> T:
    """What it gives as soon as that is something."""
    deadline = time.monotonic() + WITHIN
    while not (value := found()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)
    return value


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.HTTPError, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(WITHIN)
