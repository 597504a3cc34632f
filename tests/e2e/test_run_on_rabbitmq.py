"""`callcast run` on a RabbitMQ: its log is for people, and ends in one sentence when it must."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from operator_parts import run, write_module

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def service(tmp_path: Path, rabbitmq_url: str) -> Generator[str]:
    """``MODULE:NAME`` of a service in that folder; its group ends with the test."""
    name = f"till{secrets.token_hex(4)}"
    write_module(tmp_path, name, topic=f"{name}.orders", prefix=f"{name}-")
    yield f"{name}:mail"
    run("topology", "retire", f"{name}-mail", "--yes", "--broker", rabbitmq_url)


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "callcast", "run", "--port", "0", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("guest@127.0.0.1", "nobody@127.0.0.1"), 4, "check user and password in the URL"),
        ((":{port}/", ":1/"), 3, "nobody listens at 127.0.0.1:1"),
        (("amqp://", "amqps://"), 3, "does not speak TLS"),
        (("/tests-", "/no-tests-"), 3, "has no vhost"),
    ],
)
def test_where_it_cannot_begin_it_says_why_in_one_sentence(
    service: str, rabbitmq_url: str, tmp_path: Path, change: tuple[str, str], code: int, said: str
) -> None:
    old, new = change
    url = rabbitmq_url.replace(old.format(port=urlsplit(rabbitmq_url).port), new)
    assert url != rabbitmq_url
    running = started(tmp_path, service, "--broker", url)
    out, heard = running.communicate(timeout=50)
    assert (running.returncode, out) == (code, "")
    lines = heard.splitlines()
    assert [line for line in lines if line.startswith("error: ") and said in line]
    own = (" uvicorn.error: ", " callcast: ", "error: ", "  try: ")
    assert [line for line in lines if not any(each in line for each in own)] == []


def test_at_work_its_log_has_no_line_of_the_driver_unless_every_fact_is_wanted(
    service: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    heard: dict[str, str] = {}
    for log in ("text", "debug"):
        running = started(tmp_path, service, "--broker", rabbitmq_url, "--log", log)
        assert running.stderr is not None
        lines: list[str] = []
        while not lines or "ready" not in lines[-1]:
            lines.append(running.stderr.readline())
            assert lines[-1], lines
        running.send_signal(signal.SIGTERM)
        heard[log] = "".join(lines) + running.communicate(timeout=50)[1]
        assert running.returncode == 0
    assert "pika" not in heard["text"]
    assert "pika" in heard["debug"]
