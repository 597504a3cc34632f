"""``callcast queues``: what waits, runs, is delayed or dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from callcast.cli.inboxes import Inboxes, inboxes
from callcast.cli.letters import sources_of
from callcast.cli.opening import broker_option, chosen, existing, opened
from callcast.cli.output import Record, emit, output_option
from callcast.ports.broker import Broker, Lag, Source
from callcast.runtime.system import system_ports

COLUMNS = ("topic", "group", "ready", "in_flight", "delayed", "dead", "oldest", "paused")
WATCH = 2.0
"""Seconds between two looks."""
AT_ONCE = 8
"""Groups that are asked about at the same time: a server needs some milliseconds for each."""


@click.command(
    epilog="""\b
Examples:
  callcast queues
  callcast queues --broker sqlite:///shop.db -o json
  callcast queues --watch
"""
)
@broker_option
@output_option
@click.option("--group", help="Only this group.")
@click.option("--watch", is_flag=True, help=f"Look again every {WATCH:g} seconds, until Ctrl-C.")
def queues(url: str | None, form: str, *, group: str | None, watch: bool) -> None:
    """Say what waits, runs, is delayed or dead, per topic and group.

    `dead` counts the letters that ask for something: not those that `dlq ls` calls superseded.
    `oldest` is the age in seconds of the oldest message that is not done, dead ones included.
    """

    async def look() -> None:
        broker_url = existing(chosen(url))
        ports = system_ports(broker_url)
        async with opened(broker_url, ports.clock) as broker, inboxes(broker_url, ports) as known:
            emit(await lags(broker, known, group), form, COLUMNS)
            while watch:
                await ports.clock.sleep(WATCH)
                if form == "table":
                    click.echo()
                emit(await lags(broker, known, group), form, COLUMNS)

    asyncio.run(look())


async def lags(broker: Broker, known: Inboxes, group: str | None = None) -> Sequence[Record]:
    """One record per source, by name."""
    room = asyncio.Semaphore(AT_ONCE)

    async def look(source: Source) -> Record:
        async with room:
            lag = await broker.lag(source)
        return record_of(source, await known.counted(broker, source, lag))

    sources = await sources_of(broker, group)
    try:
        async with asyncio.TaskGroup() as asking:
            asked = [asking.create_task(look(source)) for source in sources]
    except ExceptionGroup as several:
        raise several.exceptions[0] from several  # the others are ended, and say the same
    return [task.result() for task in asked]


def record_of(source: Source, lag: Lag) -> dict[str, object]:
    """How far one group is behind, for JSON and tables."""
    return {
        "topic": source.topic,
        "group": source.group,
        "ordered": source.ordered,
        "ready": lag.ready,
        "in_flight": lag.leased,
        "delayed": lag.delayed,
        "dead": lag.dead,
        "oldest": lag.oldest,
        "paused": lag.paused,
    }
