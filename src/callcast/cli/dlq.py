"""``callcast dlq``: look at dead letters and send them again."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from contextlib import aclosing

import click
import msgspec

from callcast.cli.failure import Failure, Forbidden, Partial, Unreachable
from callcast.cli.inboxes import inboxes
from callcast.cli.letters import (
    FIELDS,
    Filter,
    Letter,
    Redrive,
    Redriven,
    Wanted,
    browse,
    record_of,
)
from callcast.cli.opening import broker_option, chosen, existing, on_broker, opened, operator
from callcast.cli.output import emit, emit_one, note, output_option
from callcast.core.errors import NotPermitted
from callcast.core.message import Message
from callcast.ports.broker import Broker, Parks, Source, need
from callcast.ports.clock import Clock
from callcast.runtime.system import system_ports
from callcast.telemetry.logs import without_passwords

COLUMNS = ("id", "type", "group", "key", "attempts", "last_failed_at", "reason", "superseded")
STACK = "callcast-error-stack"
PROGRESS = 100
"""Redriven letters between two lines of progress."""


def selection(function: Callable[..., None]) -> Callable[..., None]:
    """``--filter`` and ``--group``, and arguments ``ids`` where there are any, as `wanted`."""

    @click.option("--group", help="Only dead letters of this group.")
    @click.option(
        "--filter",
        "--query",
        "filters",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Also FIELD!=VALUE, and FIELD~TEXT for 'contains'; several must all fit. Fields: "
        f"{', '.join(FIELDS)}.",
    )
    @functools.wraps(function)
    def select(
        filters: Sequence[str], group: str | None, ids: Sequence[str] = (), **rest: object
    ) -> None:
        chosen = [Filter.parse(text) for text in filters]
        function(wanted=Wanted(ids=frozenset(ids), group=group, filters=chosen), **rest)

    return select


@click.group()
def dlq() -> None:
    """Look at dead letters and send them again to the group that failed."""


@dlq.command(
    epilog="""\b
Examples:
  callcast dlq ls
  callcast dlq ls --filter type=orders.placed --filter 'reason~no box' -o json
"""
)
@broker_option
@output_option
@selection
def ls(*, url: str | None, form: str, wanted: Wanted) -> None:
    """List dead letters, oldest first; nothing is consumed.

    A superseded one needs no redrive: another copy of it was handled, its effect is there.
    """
    emit([record_of(letter) for letter, _ in _looked_at(url, wanted)], form, COLUMNS)


@dlq.command(
    epilog="""\b
Examples:
  callcast dlq show 0198f1c2
  callcast dlq show 0198f1c2 --body -o json
"""
)
@click.argument("message_id", metavar="ID")
@broker_option
@output_option
@click.option("--group", help="Only the dead letter of this group.")
@click.option("--body", is_flag=True, help="The body too: it may hold what is nobody's business.")
def show(*, message_id: str, url: str | None, form: str, group: str | None, body: bool) -> None:
    """Show a dead letter with its headers and the stack of its error.

    One that several groups failed to handle is shown once for each.
    """
    found = _looked_at(url, Wanted(ids=[message_id], group=group))
    if not found:
        raise _unknown([message_id])
    for letter, message in found:
        record: dict[str, object] = record_of(letter)
        if body:
            record["body"] = message.body.decode("utf-8", "backslashreplace")
        if form == "table":
            emit_one(record, form)
            click.echo(message.headers.get(STACK, ""))
        else:
            emit_one({**record, "headers": dict(message.headers)}, form)


@dlq.command(
    epilog="""\b
Examples:
  callcast dlq redrive 0198f1c2
  callcast dlq redrive --filter 'reason~no box' --dry-run
  callcast dlq redrive --all --rate 50
"""
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@broker_option
@output_option
@selection
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--rate", type=click.FloatRange(min=0.0), default=0.0, help="At most N a second.")
@click.option("--dry-run", is_flag=True, help="Say what would be redriven, and change nothing.")
def redrive(
    *, url: str | None, form: str, wanted: Wanted, everything: bool, rate: float, dry_run: bool
) -> None:
    """Send dead letters again, under their ids, only to the group that failed.

    Each is sent before it leaves the dead letters: stopped midway, start it again. When the broker
    fails again and again it stops by itself and says how many are left. Exit code 5 when some
    could not be sent, 3 when none could because the broker failed, 4 when the user may not.
    """
    if everything == bool(wanted.ids or wanted.filters or wanted.group):
        raise Failure(
            "say which dead letters: an ID, --filter, --group, or --all alone",
            fix="callcast dlq ls",
        )
    if dry_run:
        emit([record_of(letter) for letter, _ in _looked_at(url, wanted)], form, COLUMNS)
        return

    async def send(broker: Broker, clock: Clock) -> tuple[list[Redriven], Failure | None]:
        redriving = Redrive(broker, wanted, clock=clock, by=operator(), rate=rate)
        results = await _collect(redriving)
        return results, await _stopped(redriving, results)

    results, stopped = on_broker(url, send)
    if results or form != "table":
        records = [msgspec.structs.asdict(result) for result in results]
        emit(records, form, ("id", "group", "error"))
    _conclude(results, wanted, stopped)


@dlq.command(
    epilog="""\b
Examples:
  callcast dlq skip 0198f1c2
  callcast dlq skip 0198f1c2 --group fulfilment -o json

Only an Event(on_dead="park") holds its key; the letter stays among the dead.
"""
)
@click.argument("message_id", metavar="ID")
@broker_option
@output_option
@click.option("--group", help="Only of this group.")
def skip(*, message_id: str, url: str | None, form: str, group: str | None) -> None:
    """Let the key of a parked dead letter go on without it.

    What was held behind it is handled in its order. HELD says how many messages that is.
    """

    async def work(broker: Broker, clock: Clock) -> list[dict[str, object]]:
        del clock
        parks = need(broker, Parks)
        wanted = Wanted(ids=[message_id], group=group)
        letters = [letter async for letter, _ in browse(broker, wanted)]
        return [
            {
                "id": letter.id,
                "topic": letter.topic,
                "group": letter.group,
                "key": letter.key,
                "held": await parks.unpark(Source(letter.topic, letter.group), letter.key),
            }
            for letter in letters
            if letter.key is not None
        ]

    skipped = on_broker(url, work)
    if not skipped:
        raise Failure(f"there is no dead letter {message_id} with a key", fix="callcast dlq ls")
    emit(skipped, form, ("id", "group", "key", "held"))


async def _stopped(redriving: Redrive, results: Sequence[Redriven]) -> Failure | None:
    """Why it stopped before its end and how many letters are left, if it did."""
    reason = redriving.stopped
    if reason is None:
        return None
    left = await redriving.left()
    what = "an unknown number of" if left is None else left
    is_partial = any(not result.error for result in results)
    alone = Forbidden if isinstance(reason, NotPermitted) else Unreachable
    kind = Partial if is_partial else alone
    name = "" if kind is Forbidden else f"{type(reason).__name__}: "
    return kind(
        f"{name}{without_passwords(str(reason))}; {what} dead letters are left",
        fix="callcast doctor, then the same redrive again",
    )


def _conclude(results: Sequence[Redriven], wanted: Wanted, stopped: Failure | None) -> None:
    """Say how it went, and fail when it did not all go well."""
    failed = [result for result in results if result.error]
    note(f"{len(results) - len(failed)} redriven, {len(failed)} failed")
    if stopped is not None:
        raise stopped
    missing = sorted(set(wanted.ids) - {result.id for result in results})
    if failed or (results and missing):
        names = ", ".join([*(result.id for result in failed), *missing][:5])
        raise Partial(
            f"{len(failed) + len(missing)} dead letters were not redriven: {names}",
            fix="callcast dlq ls",
        )
    if missing:
        raise _unknown(missing)


async def _collect(redrive: Redrive) -> list[Redriven]:
    results: list[Redriven] = []
    async with aclosing(redrive()) as each:
        async for result in each:
            results.append(result)
            if len(results) % PROGRESS == 0:
                note(f"{len(results)} so far")
    return results


def _looked_at(url: str | None, wanted: Wanted) -> list[tuple[Letter, Message]]:
    """All wanted letters, each with whether it is superseded; of copies the latest alone."""

    async def look() -> list[tuple[Letter, Message]]:
        broker_url = existing(chosen(url))
        ports = system_ports(broker_url)
        async with opened(broker_url, ports.clock) as broker, inboxes(broker_url, ports) as known:
            found = {
                (letter.topic, letter.group, letter.sender, letter.id, message.body): (
                    letter,
                    message,
                )
                async for letter, message in browse(broker, wanted)
            }
            return [(await known.judged(*each), each[1]) for each in found.values()]

    return asyncio.run(look())


def _unknown(ids: Sequence[str]) -> Failure:
    return Failure(f"there is no dead letter {', '.join(ids)}", fix="callcast dlq ls")
