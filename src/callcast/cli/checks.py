"""What ``callcast doctor`` looks at; each check is one function and finds one thing."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from callcast.cli.inboxes import Inboxes
from callcast.cli.letters import sources_of
from callcast.cli.opening import existing, file_of
from callcast.core.errors import CallcastError
from callcast.core.tls import is_loopback
from callcast.ports.broker import Broker, Browses, Source, need
from callcast.runtime.settings import Table, settings_of
from callcast.telemetry.logs import redacted

Level: TypeAlias = Literal["ok", "warn", "fail"]

FILES_MIN = 1_024
"""Open files that a service with many connections needs."""
FREE_MIN_BYTES = 512 * 1024 * 1024
"""Below so much free space a busy broker file is hours from a full disk."""
SQLITE_MIN = (3, 35, 0)
"""The first SQLite with RETURNING."""
OWNER_ONLY = 0o077
"""Bits of a file's mode that let others in."""

ABANDONED = 86_400.0
"""Seconds for which a group may be without a worker before that is an alarm."""

EXTRAS: Mapping[str, str] = {
    "rich": "rich",
    "otel": "opentelemetry.sdk",
    "rabbitmq": "pika",
    "kafka": "confluent_kafka",
    "pydantic": "pydantic",
}


class Finding(Struct, frozen=True):
    """What a check found, and what to do about it."""

    check: str
    level: Level
    detail: str
    fix: str = ""


def python() -> Finding:
    """The interpreter and callcast itself."""
    running = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", f"Python {running}, callcast {version('callcast')}")


def sqlite() -> Finding:
    """The SQLite that Python was built with."""
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        return Finding(
            "sqlite",
            "fail",
            f"SQLite {sqlite3.sqlite_version} is older than {wanted}",
            "use a Python that was built with a newer SQLite",
        )
    return Finding("sqlite", "ok", f"SQLite {sqlite3.sqlite_version}")


def extras() -> Finding:
    """Which extras are installed."""
    there = [name for name, module in EXTRAS.items() if is_there(module)]
    return Finding("extras", "ok", ", ".join(there) or "none")


def open_files() -> Finding:
    """The limit of open files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < FILES_MIN:
        return Finding(
            "open files", "warn", f"at most {limit} may be open", f"ulimit -n {FILES_MIN * 8}"
        )
    return Finding("open files", "ok", f"at most {limit}")


def tracing(environ: Mapping[str, str]) -> Finding:
    """An endpoint for traces is of no use without the SDK."""
    endpoint = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint and not is_there("opentelemetry.sdk"):
        return Finding(
            "tracing",
            "fail",
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but nothing exports: there is no SDK",
            "pip install 'callcast[otel]'",
        )
    return Finding("tracing", "ok", "exports as configured" if endpoint else "not configured")


def configuration(table: Table) -> Finding:
    """Whether the settings of this folder can be used."""
    try:
        settings_of(table)
    except CallcastError as error:
        return Finding("settings", "fail", str(error), "correct it in callcast.toml or CALLCAST_*")
    return Finding("settings", "ok", f"broker {redacted(table.broker or 'memory://')}")


def broker_file(url: str) -> Sequence[Finding]:
    """Modes and space of an embedded broker's file."""
    path = file_of(url)
    findings: list[Finding] = []
    if path.stat().st_mode & OWNER_ONLY:
        findings.append(
            Finding("broker file", "warn", f"{path} is open to others", f"chmod 600 {path}*")
        )
    if not os.access(path, os.W_OK):
        findings.append(
            Finding("broker file", "fail", f"{path} cannot be written", f"chmod u+w {path}")
        )
    free = shutil.disk_usage(path.absolute().parent).free
    if free < FREE_MIN_BYTES:
        findings.append(
            Finding(
                "disk", "warn", f"{free // 2**20} MiB are free beside {path}", "free some space"
            )
        )
    return findings or [Finding("broker file", "ok", f"{path}, {free // 2**20} MiB free")]


async def backlog(broker: Broker, known: Inboxes, wall: float) -> Sequence[Finding]:
    """That the broker answers, which dead letters wait there, and which groups nobody works for.

    Dead letters that are superseded do not count. `wall` is the wall-clock time.
    """
    found = [Finding("broker", "ok", f"{broker.traits.name} answers")]
    dead: dict[str, int] = {}
    for source in await sources_of(broker):
        lag = await known.counted(broker, source, await broker.lag(source))
        if lag.dead:
            dead[str(source)] = lag.dead
        if lag.ready and not lag.paused:
            found += await _abandoned(broker, source, wall)
    if dead:
        counts = ", ".join(f"{count} in {name}" for name, count in dead.items())
        found.append(Finding("dead letters", "warn", counts, "callcast dlq ls"))
    return found


async def _abandoned(broker: Broker, source: Source, wall: float) -> Sequence[Finding]:
    """Whether a group has a message that nobody has looked at for a day: it has no worker."""
    for first in await need(broker, Browses).browse(source, limit=1):
        message = first.message
        waited = wall - max(message.time, message.deliver_at or 0.0)
        if message.time and not first.round and waited >= ABANDONED:
            detail = f"{source} has had a message wait for {waited / 3_600:.0f} h: it has no worker"
            fix = f"start its service, or end the group: callcast topology retire {source.group}"
            return [Finding("groups", "fail", detail, fix)]
    return ()


def in_clear(url: str) -> Sequence[Finding]:
    """A password that travels in clear to another machine."""
    parts = [urlsplit(each.strip()) for each in url.split(",")]
    hosts = [
        one.hostname or ""
        for one in parts
        if one.scheme == "amqp" and not is_loopback(one.hostname)
    ]
    if not hosts:
        return ()
    detail = f"user and password go in clear to {', '.join(hosts)}"
    return [Finding("encryption", "warn", detail, "use amqps:// there, with ca=FILE in the query")]


def reachable(url: str) -> Finding | None:
    """None when there is something to look at behind the URL."""
    if urlsplit(url).scheme == "memory":
        return Finding("broker", "ok", "memory://: nothing survives its process")
    try:
        existing(url)
    except Exception as error:  # noqa: BLE001 - whatever it is, the finding says it
        return Finding("broker", "fail", str(error), "callcast run MODULE:NAME makes it")
    return None


def is_there(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
