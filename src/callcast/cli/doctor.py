"""``callcast doctor``: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from callcast.cli import checks
from callcast.cli.checks import Finding
from callcast.cli.failure import DOCTOR, FINDINGS, failure_of
from callcast.cli.inboxes import inboxes
from callcast.cli.opening import broker_option, opened
from callcast.cli.output import emit, output_option
from callcast.core.errors import CallcastError
from callcast.runtime.settings import BROKER_DEFAULT, read_table
from callcast.runtime.system import system_ports

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command(
    epilog="""\b
Examples:
  callcast doctor
  callcast doctor --broker sqlite:///shop.db -o json

Exit code 1 when a check fails.
"""
)
@broker_option
@output_option
@click.option("--exit-zero", is_flag=True, help="Exit 0 whatever is found.")
@click.pass_context
def doctor(ctx: click.Context, *, url: str | None, form: str, exit_zero: bool) -> None:
    """Check this installation, the settings of this folder and the broker."""
    found = findings(url)
    if form == "table":
        for finding in found:
            click.echo(f"{MARKS[finding.level]}  {finding.check}: {finding.detail}")
            if finding.fix:
                click.echo(f"      fix: {finding.fix}")
    else:
        emit([msgspec.structs.asdict(finding) for finding in found], form, ())
    if not exit_zero and any(finding.level == "fail" for finding in found):
        ctx.exit(FINDINGS)


def findings(url: str | None) -> Sequence[Finding]:
    """All that the checks find, in their order."""
    table = read_table(Path.cwd())
    return [
        checks.python(),
        checks.sqlite(),
        checks.extras(),
        checks.open_files(),
        checks.tracing(os.environ),
        checks.configuration(table),
        *_of_broker(url or table.broker or BROKER_DEFAULT),
    ]


def _of_broker(url: str) -> Sequence[Finding]:
    absent = checks.reachable(url)
    if absent is not None:
        return [absent]
    is_file = urlsplit(url).scheme == "sqlite"
    found = checks.broker_file(url) if is_file else checks.in_clear(url)
    try:
        return [*found, *asyncio.run(_looked_into(url))]
    except (CallcastError, OSError) as error:
        failure = failure_of(error)
        detail, fix = (str(error), "") if failure is None else (failure.message, failure.fix)
        # What a server refused says itself what to do; commands send people here.
        return [*found, Finding("broker", "fail", detail, "" if fix == DOCTOR else fix)]


async def _looked_into(url: str) -> Sequence[Finding]:
    ports = system_ports(url)
    async with opened(url, ports.clock) as broker, inboxes(url, ports) as known:
        return await checks.backlog(broker, known, ports.clock.wall())
