"""Parts for tests of commands on a broker that cannot be used: what they say, and bad addresses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "not-to-be-seen"
COMMANDS = (
    ("queues",),
    ("dlq", "ls"),
    ("pause", "stock"),
    ("topology", "apply", "shop.fulfilment:service"),
    ("demo", "--orders", "20"),
)
SHOP = Path(__file__).parents[1] / "examples"
BOUND = 20.0
"""Seconds within which a command gives up, its start on a busy machine included."""


def refused(url: str, *command: str, code: int, environ: Mapping[str, str] = os.environ) -> str:
    """What such a command says on stderr: nothing else happens, and no traceback is shown."""
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "callcast", *command, "--broker", url],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=SHOP,
        env=environ,
        check=False,
    )
    assert time.monotonic() - began < BOUND
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert PASSWORD not in ran.stderr
    assert lines.index(errors[0]) >= len(lines) - 2  # then only what to try
    assert not [line for line in lines if line.startswith("%")]  # as a driver in C logs
    return errors[0].removeprefix("error: ")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def mute_port() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])
