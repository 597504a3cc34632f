"""A command on a Kafka that cannot be used: one sentence, what was tried, what to do, exit 3 or 4.

What needs a listener with passwords or certificates is in the tests of those.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from operator_parts import records
from refused_parts import COMMANDS, PASSWORD, closed_port, mute_port, refused

from callcast.core.errors import Misuse, NotSent, Unpublished
from callcast.core.message import Message
from callcast.ports.broker import Broker, Source
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_listens_there(command: Sequence[str]) -> None:
    port = closed_port()
    said = refused(f"kafka://127.0.0.1:{port}", *command, code=3)
    assert said == (
        f"nobody listens at 127.0.0.1:{port}: start Kafka there, or check host and port in the URL"
    )


def test_there_is_no_such_host() -> None:
    said = refused("kafka://nowhere.invalid", "queues", code=3)
    assert "there is no host 'nowhere.invalid'" in said
    assert "check the URL" in said


def test_who_listens_there_does_not_answer() -> None:
    with mute_port() as port:
        said = refused(f"kafka://127.0.0.1:{port}", "queues", code=3)
    assert f"127.0.0.1:{port} did not answer in time" in said
    assert "is a Kafka and wants no TLS (kafkas://) and no user and password" in said


def test_who_listens_there_is_no_kafka(rabbitmq_url: str) -> None:
    port = urlsplit(rabbitmq_url).port
    said = refused(f"kafka://127.0.0.1:{port}", "queues", code=3)
    assert f"127.0.0.1:{port} answers, but does not speak Kafka's protocol" in said
    assert "check the port" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plain_port_does_not_speak_tls(kafka_url: str, command: Sequence[str]) -> None:
    said = refused(kafka_url.replace("kafka://", "kafkas://"), *command, code=3)
    assert "does not speak TLS" in said
    assert "use kafka:// there" in said


def test_a_port_without_passwords_is_given_one(kafka_url: str) -> None:
    at = urlsplit(kafka_url).netloc
    url = f"kafka://guest:{PASSWORD}@{at}?mechanism=SCRAM-SHA-512"
    said = refused(url, "queues", code=4)
    assert "asks for no password" in said
    assert "leave user 'guest' out of the URL" in said


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("kafka://host:port", "the broker URL names a host 'host:port'"),
        ("kafka://host?partition=3", "broker option 'partition' is unknown to kafka://"),
        ("kafkas://host?ca=/nowhere/ca.pem", "ca='/nowhere/ca.pem': there is no such file"),
        (f"kafka://guest:{PASSWORD}@host", "SASL PLAIN without TLS shows the password"),
        (f"kafkas://guest:{PASSWORD}@host?mechanism=MD5", "use PLAIN, SCRAM-SHA-256"),
    ],
)
def test_the_url_is_wrong(url: str, sentence: str) -> None:
    assert sentence in refused(url, "queues", code=2)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    said = refused(f"kafkas://localhost?ca={file}", "queues", code=2)
    assert "the broker URL cannot be used" in said
    assert "ssl.ca.location failed" in said


def test_the_extra_is_missing(tmp_path: Path) -> None:
    (tmp_path / "confluent_kafka.py").write_text(
        "raise ModuleNotFoundError('no driver', name='confluent_kafka')"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = refused("kafka://localhost", "queues", code=2, environ=environ)
    assert "pip install 'callcast[kafka]'" in said


async def test_what_was_never_made_is_said_at_once(kafka_url: str) -> None:
    """The server makes no topic by itself, and nobody waits for one that is not there."""
    name = f"nobody-made-{secrets.token_hex(4)}"
    broker: Broker = registry.open_broker(kafka_url, AsyncioClock())
    try:
        with pytest.raises(Unpublished) as refusal:
            await broker.publish([Message("1", "/us", name, name, b"{}")])
        [error] = refusal.value.errors
        assert isinstance(error, NotSent)
        assert f"there is no topic '{name}': ensure it first (or check its name)" in str(error)
        with pytest.raises(Misuse, match=f"there is no group {name}/mail: ensure it first"):
            await broker.consume(Source(name, "mail"))
    finally:
        await broker.close()


def test_the_doctor_says_the_same_and_sends_nobody_to_itself() -> None:
    port = closed_port()
    found = records("doctor", "--broker", f"kafka://127.0.0.1:{port}", code=1)
    [broker] = [one for one in found if one["check"] == "broker"]
    assert broker["level"] == "fail"
    assert f"nobody listens at 127.0.0.1:{port}" in str(broker["detail"])
    assert broker["fix"] == ""
