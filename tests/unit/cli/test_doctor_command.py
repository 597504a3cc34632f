"""`callcast doctor`: it finds what is wrong and says how to mend it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from operator_parts import on_broker

from callcast import Bus, Event, Message, Service
from callcast.cli import checks
from callcast.cli.app import main
from callcast.core.errors import Refused
from callcast.ports.broker import Broker, Pauses, Source, need

TICK = Event("shop.tick", int)


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args])


def found(result: Result) -> dict[str, dict[str, str]]:
    return {finding["check"]: finding for finding in json.loads(result.stdout)}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    monkeypatch.setenv("CALLCAST_BROKER", url)
    service = Service("shop")

    @service.on(TICK)
    async def on_tick(_tick: int) -> None:
        raise Refused("no")

    async def work() -> None:
        async with Bus(url, services=[service]) as bus:
            await bus.publish(TICK, 1)
            await bus.idle()

    asyncio.run(work())
    return url


def test_a_sound_installation_has_dead_letters_at_worst(url: str) -> None:
    result = run("-o", "json")
    assert result.exit_code == 0
    levels = {name: finding["level"] for name, finding in found(result).items()}
    assert levels.pop("dead letters") == "warn"
    assert set(levels.values()) == {"ok"}
    assert "sqlite answers" in found(result)["broker"]["detail"]


def test_findings_are_lines_with_a_fix(url: str) -> None:
    lines = run().stdout.splitlines()
    at = lines.index("warn  dead letters: 1 in shop.tick/shop")
    assert lines[at + 1] == "      fix: callcast dlq ls"


DAY = 86_400.0


def waiting(at: str, wall: float, *, paused: bool = False) -> None:
    """A message that was published then and that nobody has looked at, of a group `late`."""

    async def publish(broker: Broker) -> None:
        source = Source("shop.late", "late")
        await broker.ensure([source.topic], [source])
        await broker.publish([Message("m", "tests", source.topic, source.topic, b"1", time=wall)])
        if paused:
            await need(broker, Pauses).pause(source)

    on_broker(at, publish)


def test_a_group_without_a_worker_for_a_day_is_an_alarm(url: str) -> None:
    waiting(url, time.time() - 25 * 3_600)
    result = run("-o", "json")
    assert result.exit_code == 1
    finding = found(result)["groups"]
    assert finding["level"] == "fail"
    assert finding["detail"] == ("shop.late/late has had a message wait for 25 h: it has no worker")
    assert "callcast topology retire late" in finding["fix"]


@pytest.mark.parametrize(("age", "paused"), [(DAY - 60.0, False), (2 * DAY, True)])
def test_a_group_that_is_paused_or_late_by_less_is_none(url: str, age: float, paused: bool) -> None:
    waiting(url, time.time() - age, paused=paused)
    result = run("-o", "json")
    assert "groups" not in found(result)


def test_a_broker_file_that_is_not_there_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--broker", "sqlite:///none.db", "-o", "json")
    assert result.exit_code == 1
    assert found(result)["broker"]["level"] == "fail"
    assert run("--broker", "sqlite:///none.db", "--exit-zero").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_broker_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("not a database, but a text that is long enough" * 100)
    result = run("--broker", "sqlite:///text.db", "-o", "json")
    assert result.exit_code == 1
    assert found(result)["broker"]["level"] == "fail"


def test_a_memory_broker_is_well_but_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLCAST_BROKER", raising=False)
    assert "nothing survives" in found(run("-o", "json"))["broker"]["detail"]


def test_settings_that_cannot_be_used_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLCAST_DELAYS", "soon")
    result = run("-o", "json")
    assert result.exit_code == 1
    assert found(result)["settings"]["level"] == "fail"
    assert "soon" in found(result)["settings"]["detail"]


def test_a_file_that_others_can_read_is_told(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.db").chmod(0o644)
    assert found(run("-o", "json"))["broker file"]["level"] == "warn"


def test_a_file_that_cannot_be_written_is_a_failure(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    findings = {f.check: f for f in checks.broker_file(url)}
    assert findings["broker file"].level == "fail"


def test_a_disk_that_is_nearly_full_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")  # noqa: PYI024 - shaped like shutil's own
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _path: usage(1024))
    assert [f.check for f in checks.broker_file(url)] == ["disk"]


def test_few_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.resource, "getrlimit", lambda _what: (256, 256))
    assert checks.open_files().level == "warn"


def test_an_old_sqlite_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sqlite3, "sqlite_version_info", (3, 31, 0))
    assert checks.sqlite().level == "fail"


def test_an_endpoint_without_an_sdk_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    assert checks.tracing(environ).level == "ok"
    monkeypatch.setattr(checks, "is_there", lambda _module: False)
    finding = checks.tracing(environ)
    assert (finding.level, finding.fix) == ("fail", "pip install 'callcast[otel]'")
    assert checks.tracing({}).level == "ok"
    assert checks.extras().detail == "none"


def test_a_module_below_one_that_is_not_there_is_not_there() -> None:
    assert checks.is_there("json.decoder")
    assert not checks.is_there("no_such_package.part")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://u:secret@mq.invalid/?insecure=true", "mq.invalid"),
        (
            "amqp://u:secret@one.invalid/,amqp://u:secret@two.invalid/?insecure=true",
            "one.invalid, two.invalid",
        ),
        ("amqps://u:secret@mq.invalid/", None),
        ("amqp://u:secret@localhost:1/", None),
        ("amqp://u:secret@127.0.0.1:1/,amqp://u:secret@[::1]:1/", None),
    ],
)
def test_a_password_that_goes_in_clear_to_another_machine_is_warned_of(
    url: str, hosts: str | None
) -> None:
    result = run("--broker", url, "-o", "json")
    assert "secret" not in result.output
    encryption = found(result).get("encryption")
    assert (encryption is None) is (hosts is None)
    if encryption is not None:
        assert encryption["level"] == "warn"
        assert encryption["detail"] == f"user and password go in clear to {hosts}"
        assert "amqps://" in encryption["fix"]
