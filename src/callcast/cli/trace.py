"""``callcast trace ID``: the waterfall of one order across calls and casts."""

from __future__ import annotations

import click

from callcast.cli.failure import Failure
from callcast.cli.opening import broker_option
from callcast.cli.output import cell, emit, output_option
from callcast.cli.recorded import reading, record_option, record_path
from callcast.cli.waterfall import bars, drawn
from callcast.telemetry.record.reading import spans_of


@click.command(
    epilog="""\b
Examples:
  callcast trace o-17
  callcast trace 4bf92f3577b34da6a3ce929d0e0e4736 -o json
"""
)
@click.argument("id_", metavar="ID")
@broker_option
@record_option
@output_option
def trace(id_: str, *, url: str | None, record: str | None, form: str) -> None:
    """Show where one order has been: calls, queues, retries, and what was redriven.

    ID is that of a trace, of a message or call, or the correlation id. It is read from the local
    record, which keeps the spans of some traces a second, all errors, and what is slow.
    """
    path = record_path(record, url)
    found = bars(reading(path, lambda it: spans_of(it, id_)))
    if not found:
        raise Failure(
            f"nothing is recorded under {cell(id_)!r} in {path}: it may be of another system, older"
            " than what is kept, or one of the traces that were not kept",
            fix="CALLCAST_RECORD_SPANS=all for the program keeps every one; callcast top shows what"
            " the record has",
        )
    if form != "table":
        emit([bar.record() for bar in found], form, ())
        return
    first = found[0].span
    services = {bar.span.service for bar in found}
    click.echo(
        f"trace {first.trace_id}, correlation id {cell(first.correlation_id)}:"
        f" {len(found)} spans, {len(services)} services"
    )
    for line in drawn(found):
        click.echo(line)
