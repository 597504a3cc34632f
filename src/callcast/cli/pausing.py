"""``callcast pause`` and ``callcast resume``: at the broker, for all workers of a group."""

from __future__ import annotations

from collections.abc import Sequence

import click

from callcast.cli.groups import of_group
from callcast.cli.opening import broker_option, on_broker
from callcast.cli.output import emit, note, output_option
from callcast.cli.queues import COLUMNS, record_of
from callcast.ports.broker import Broker, Pauses, need
from callcast.ports.clock import Clock


@click.command(
    epilog="""\b
Examples:
  callcast pause fulfilment
  callcast pause fulfilment --topic orders.placed -o json

Every worker stops within 5 seconds, also one that starts later. 'callcast queues' says so.
"""
)
@click.argument("group")
@broker_option
@output_option
@click.option("--topic", help="Only the group's share of this topic.")
def pause(*, group: str, url: str | None, form: str, topic: str | None) -> None:
    """Hand out nothing more to a group, until it is resumed.

    Stored at the broker: it outlives restarts of workers and broker. Nothing is lost or counted;
    what is in hand is finished, and what is published waits.
    """
    _show(group, url, form, topic=topic, is_paused=True)
    note(f"{group} is paused; go on with: callcast resume {group}")


@click.command(
    epilog="""\b
Examples:
  callcast resume fulfilment
  callcast resume fulfilment --topic orders.placed
"""
)
@click.argument("group")
@broker_option
@output_option
@click.option("--topic", help="Only the group's share of this topic.")
def resume(*, group: str, url: str | None, form: str, topic: str | None) -> None:
    """Let a paused group go on."""
    _show(group, url, form, topic=topic, is_paused=False)
    note(f"{group} goes on")


def _show(group: str, url: str | None, form: str, *, topic: str | None, is_paused: bool) -> None:
    async def work(broker: Broker, clock: Clock) -> Sequence[dict[str, object]]:
        del clock
        pauses = need(broker, Pauses)
        sources = await of_group(broker, group, topic)
        for source in sources:
            await (pauses.pause(source) if is_paused else pauses.resume(source))
        return [record_of(source, await broker.lag(source)) for source in sources]

    emit(on_broker(url, work), form, COLUMNS)
