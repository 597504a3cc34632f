"""``callcast top``: calls and casts per edge, as they go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import click

from callcast.cli.edges import Waiting, rows
from callcast.cli.inboxes import Inboxes, inboxes
from callcast.cli.opening import broker_option, is_absent, opened
from callcast.cli.output import Record, emit, note, output_option, table
from callcast.cli.queues import lags
from callcast.cli.recorded import reading, record_option, record_path
from callcast.ports.broker import Broker
from callcast.runtime import registry
from callcast.runtime.ports import Ports
from callcast.runtime.settings import read_table
from callcast.runtime.system import system_ports
from callcast.telemetry.record.reading import edges_since

COLUMNS = (
    "caller",
    "callee",
    "name",
    "verb",
    "rate",
    "p50",
    "p95",
    "p99",
    "errors",
    "queue_p95",
    "backlog",
    "lag",
    "drain",
)
EVERY = 1.0
"""Seconds between two looks."""
WINDOW = 30.0
WINDOW_MAX = 900.0
"""Seconds for which the record keeps its short slots."""
INSTALL = "pip install 'callcast[rich]'"

Show: TypeAlias = Callable[[Sequence[Record]], None]
Ask: TypeAlias = Callable[[], Awaitable[Mapping[tuple[str, str], Waiting]]]


@click.command(
    epilog="""\b
Examples:
  callcast top
  callcast top --once
  callcast top --broker sqlite:///shop.db --once -o json

Durations are seconds in JSON and milliseconds in the table. p50, p95 and p99 are what the caller
of a call waited, and what the handling of a message took.
"""
)
@broker_option
@record_option
@output_option
@click.option("--once", is_flag=True, help="Look once instead of until Ctrl-C.")
@click.option(
    "--window",
    type=click.FloatRange(10.0, WINDOW_MAX),
    default=WINDOW,
    show_default=True,
    metavar="SECONDS",
    help="The time that rates and percentiles are of.",
)
def top(url: str | None, record: str | None, form: str, *, once: bool, window: float) -> None:
    """Show calls and casts per edge: rate, percentiles, errors, backlog, lag, drain.

    They come from the local record; what waits, and how old the oldest is, from the broker.
    """
    url = url or read_table(Path.cwd()).broker
    path = record_path(record, url)
    asyncio.run(_looked(url, path, form=form, window=window, once=once))


async def _looked(url: str | None, path: str, *, form: str, window: float, once: bool) -> None:
    ports = system_ports(url or "memory://")
    async with AsyncExitStack() as stack:
        ask = await stack.enter_async_context(_broker(url, ports))

        async def look() -> Sequence[Record]:
            now = ports.clock.wall()
            found = reading(path, lambda it: edges_since(it, now - window))
            return [row.record() for row in rows(found, window, await ask())]

        if once:
            _emit(await look(), form)
            return
        show = stack.enter_context(live()) if form == "table" else _emitter(form)
        while True:
            show(await look())
            await ports.clock.sleep(EVERY)


@asynccontextmanager
async def _broker(url: str | None, ports: Ports) -> AsyncGenerator[Ask]:
    """What asks the broker, if there is one to ask."""
    if not url or urlsplit(url).scheme == "memory" or is_absent(url):
        yield _nothing
        return
    async with opened(url, ports.clock) as broker, inboxes(url, ports) as known:
        yield partial(_waiting, broker, known)


async def _nothing() -> Mapping[tuple[str, str], Waiting]:
    return {}


async def _waiting(broker: Broker, known: Inboxes) -> Mapping[tuple[str, str], Waiting]:
    """What waits per topic and group."""
    found: dict[tuple[str, str], Waiting] = {}
    for record in await lags(broker, known):
        backlog = sum(int(str(record[part])) for part in ("ready", "delayed"))
        oldest = record["oldest"] if backlog else 0.0
        key = (str(record["topic"]), str(record["group"]))
        found[key] = Waiting(backlog, float(str(oldest or 0.0)))
    return found


def _emitter(form: str) -> Show:
    return partial(_emit, form=form)


def _emit(records: Sequence[Record], form: str) -> None:
    if form == "table":
        for line in lines(records):
            click.echo(line)
    else:
        emit(records, form, COLUMNS)


def lines(records: Sequence[Record]) -> list[str]:
    """The table for people, durations in milliseconds."""
    if not records:
        return ["nothing was called or cast in this time"]
    return table([_shown(record) for record in records], COLUMNS)


@contextmanager
def live() -> Generator[Show]:
    """A page that renews itself, with rich on a terminal; else a table after the other."""
    if not sys.stdout.isatty():
        yield _after_another
    elif find_spec("rich") is None:
        note(f"for a page that renews itself: {INSTALL}")
        yield _after_another
    else:
        text = registry.load("rich.text", extra="rich").Text
        with registry.load("rich.live", extra="rich").Live(screen=True) as page:
            yield lambda records: page.update(
                text("\n".join([*lines(records), "", "Ctrl-C ends it"]), no_wrap=True),
                refresh=True,
            )


def _after_another(records: Sequence[Record]) -> None:
    for line in [*lines(records), ""]:
        click.echo(line)


def _shown(record: Record) -> dict[str, object]:
    """One record as text: what is unknown is a dash, what never ends says so."""
    shown = dict(record)
    for name in ("p50", "p95", "p99", "queue_p95"):
        shown[name] = milliseconds(record[name])
    shown["rate"] = f"{float(str(record['rate'])):.1f}/s"
    shown["errors"] = f"{100 * float(str(record['error_ratio'])):.1f} %"
    shown["lag"] = seconds(record["lag"])
    is_stuck = bool(record["backlog"]) and record["drain"] is None
    shown["drain"] = "never" if is_stuck else seconds(record["drain"])
    return shown


def milliseconds(value: object) -> str:
    """A duration in seconds as people read it."""
    return "-" if value is None else f"{1000 * float(str(value)):.1f} ms"


def seconds(value: object) -> str:
    """A longer one."""
    return "-" if value is None else f"{float(str(value)):.1f} s"
