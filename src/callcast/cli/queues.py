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
    """One record per source."""
    return [
        record_of(source, await known.counted(broker, source, await broker.lag(source)))
        for source in await sources_of(broker, group)
    ]


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
