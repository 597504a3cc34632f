"""What becomes of a test whose server is there, is given, or cannot be had; without a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import servers
from servers import Missing, OwnServer, Started, Wanted

pytest_plugins = ("pytester",)

SHELL = shutil.which("sh") or "/bin/sh"
TOLD = {"name": "kafka", "url": "kafka://127.0.0.1:1", "nodes": [{"log": "server.log"}]}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command that writes its arguments here and has one Kafka."""
    return command(tmp_path, monkeypatch, f"echo '{json.dumps({'servers': [TOLD]})}'")


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Path:
    script = folder / "servers"
    script.write_text(f'#!{SHELL}\necho "$@" >>{folder}/said\n{code}\n')
    script.chmod(0o755)
    monkeypatch.setattr(servers, "COMMAND", script)
    return folder / "said"


def test_a_server_that_was_started_is_given(said: Path) -> None:
    found = servers.start(Wanted("kafka"))
    assert found == Started(Wanted("kafka"), "kafka://127.0.0.1:1", "server.log")
    assert said.read_text().startswith("start kafka --for ")


def test_one_of_its_own_is_another_instance(said: Path) -> None:
    servers.start(Wanted("kafka", "own-1"))
    assert said.read_text().startswith("start kafka --instance own-1 --for ")


def test_a_server_that_cannot_be_had_skips_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, monkeypatch, "echo 'run apt-get install maven' >&2; exit 3")
    monkeypatch.delenv("CI", raising=False)
    found = servers.start(Wanted("kafka"))
    with pytest.raises(pytest.skip.Exception, match="no kafka: run apt-get install maven"):
        servers.had(found)


def test_in_ci_a_server_that_cannot_be_had_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no kafka: no Java"):
        servers.had(Missing("no kafka: no Java"))


def test_another_rabbitmq_is_taken_when_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(servers.CHOSEN, raising=False)
    assert servers.wanted_by("rabbitmq_url") == Wanted("rabbitmq")
    monkeypatch.setenv(servers.CHOSEN, "rabbitmq-3.10")
    assert servers.wanted_by("rabbitmq_url") == Wanted("rabbitmq-3.10")
    own = servers.wanted_by("a_rabbitmq_of_its_own")
    assert own is not None
    assert own.kind == "rabbitmq-3.10"
    assert servers.wanted_by("tmp_path") is None


def test_only_the_servers_that_tests_ask_for_are_started(
    said: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest('pytest_plugins = ("servers",)')
    pytester.makepyfile(
        "def test_a(kafka_url): assert kafka_url == 'kafka://127.0.0.1:1'\n"
        "def test_b(rabbitmq_url): pass\n"
        "def test_c(): pass\n"
    )
    pytester.inline_run("-k", "test_c").assertoutcome(passed=1)
    assert not said.exists()
    pytester.inline_run("-k", "test_a").assertoutcome(passed=1)
    first, last = said.read_text().splitlines()
    assert first.startswith("start kafka --for ")
    assert last.startswith("stop --for ")


def test_after_a_test_what_it_killed_and_froze_runs_again(said: Path) -> None:
    own = OwnServer(Started(Wanted("kafka-3", "own-1"), "kafka://127.0.0.1:1"))
    own.kill("1")
    own.restart("1")
    own.kill("2")
    own.freeze("3")
    own.heal()
    own.heal()
    assert [line.partition(" --")[0] for line in said.read_text().splitlines()] == [
        "kill kafka-3 1",
        "restart kafka-3 1",
        "kill kafka-3 2",
        "freeze kafka-3 3",
        "thaw kafka-3 3",
        "restart kafka-3 2",
    ]


@pytest.mark.parametrize("vhost", ["tests-1", "a/b"])
def test_a_vhost_takes_the_place_of_the_default_one(vhost: str) -> None:
    url = servers.in_vhost("amqp://guest:guest@127.0.0.1:5672/%2F", vhost)
    assert url == f"amqp://guest:guest@127.0.0.1:5672/{vhost.replace('/', '%2F')}"
