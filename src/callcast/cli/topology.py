"""``callcast topology``: what code needs of a broker, what is there, and ending what is over."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from callcast.cli.failure import FINDINGS, Failure, Partial
from callcast.cli.groups import of_group
from callcast.cli.loading import load
from callcast.cli.needs import Needs, Row, compared, needs_of
from callcast.cli.opening import broker_option, on_broker, on_broker_to_be
from callcast.cli.output import emit, note, output_option
from callcast.core.errors import CallcastError
from callcast.ports.broker import Broker, Browses, Inspects, Lag, Retires, Source, need
from callcast.ports.clock import Clock

COLUMNS = ("state", "kind", "name", "needed_by", "detail")
LOSSES = ("topic", "group", "ready", "in_flight", "delayed", "dead", "result")


@click.group()
def topology() -> None:
    """Compare what code needs with what the broker has, make what is missing, end groups."""


@topology.command(
    epilog="""\b
Examples:
  callcast topology diff shop.orders:service shop.fulfilment:service
  callcast topology diff shop.contracts:PLACED --broker sqlite:///shop.db -o json

Exit code 1 when something is missing or differs. Nothing is started, and nothing is changed.
"""
)
@click.argument("targets", nargs=-1, required=True, metavar="MODULE:NAME...")
@broker_option
@output_option
@click.option("--exit-zero", is_flag=True, help="Exit 0 whatever differs.")
@click.pass_context
def diff(
    ctx: click.Context, *, targets: Sequence[str], url: str | None, form: str, exit_zero: bool
) -> None:
    """Show what code needs, what the broker has, and what differs.

    MODULE:NAME is a Service, a Bus, an Operation that is cast, or an Event that is published.
    STATE is there, missing ('apply' makes it), differs (nothing but you can mend it) or other:
    on the broker, and no need of this code.
    """
    needs = _needs(targets)

    async def look(broker: Broker, clock: Clock) -> Sequence[Row]:
        del clock
        return await _compared(broker, needs)

    rows = on_broker_to_be(url, look, makes=False)
    emit([msgspec.structs.asdict(row) for row in rows], form, COLUMNS)
    if not exit_zero and any(row.state in {"missing", "differs"} for row in rows):
        ctx.exit(FINDINGS)


@topology.command(
    epilog="""\b
Examples:
  callcast topology apply shop.orders:service shop.fulfilment:service
  callcast topology apply shop.contracts:PLACED --broker sqlite:///shop.db

Exit code 5 when something differs that cannot be made otherwise without destroying it.
"""
)
@click.argument("targets", nargs=-1, required=True, metavar="MODULE:NAME...")
@broker_option
@output_option
def apply(*, targets: Sequence[str], url: str | None, form: str) -> None:
    """Make what is missing at the broker, before anything starts. Never destroys anything.

    The rows say how it is afterwards. Doing it twice is doing it once.
    """
    needs = _needs(targets)

    async def make(broker: Broker, clock: Clock) -> tuple[int, Sequence[Row]]:
        del clock
        before = await _compared(broker, needs)
        other = {row.name for row in before if row.state == "differs"}
        makeable = [source for source in needs.sources if str(source) not in other]
        await broker.ensure([topic for topic in needs.topics if topic not in other], makeable)
        after = await _compared(broker, needs)
        return _count(before, "missing") - _count(after, "missing"), after

    made, rows = on_broker_to_be(url, make, makes=True)
    emit([msgspec.structs.asdict(row) for row in rows], form, COLUMNS)
    note(f"{made} made")
    left = [row.name for row in rows if row.state in {"missing", "differs"}]
    if left:
        raise Partial(
            f"left as they are, since making them otherwise would destroy: {', '.join(left)}",
            fix="drain the group and 'callcast topology retire' it, or mend the contract",
        )


@topology.command(
    epilog="""\b
Examples:
  callcast topology retire newsletter
  callcast topology retire newsletter --topic orders.placed --yes

Stop the group's workers first. Without --yes it says what would be lost, and changes nothing.
"""
)
@click.argument("group")
@broker_option
@output_option
@click.option("--topic", help="Only the group's share of this topic.")
@click.option("--yes", is_flag=True, help="Do it: what waits for the group is gone for good.")
def retire(*, group: str, url: str | None, form: str, topic: str | None, yes: bool) -> None:
    """End a group for good, with all that waits for it and its dead letters.

    A group that nobody consumes any more keeps all that is published. Other groups lose nothing.
    """

    async def work(broker: Broker, clock: Clock) -> Sequence[tuple[Source, Lag, str]]:
        del clock
        retires = need(broker, Retires)
        ends = [(one, await broker.lag(one)) for one in await of_group(broker, group, topic)]
        if yes:
            _refuse_running(ends)
        return [(one, lag, await _ended(retires, one) if yes else "") for one, lag in ends]

    ended = on_broker(url, work)
    emit(
        [_loss(source, lag, _result(error, yes=yes)) for source, lag, error in ended], form, LOSSES
    )
    lost = sum(lag.ready + lag.leased + lag.delayed + lag.dead for _, lag, _ in ended)
    if not yes:
        raise Failure(
            f"nothing is changed: {lost} messages of {group!r} would be lost",
            fix="'callcast dlq redrive' and drain what is still wanted; then add --yes",
        )
    failed = [f"{source}: {error}" for source, _, error in ended if error]
    if failed:
        raise Partial(f"not retired: {'; '.join(failed)}")
    note(f"{group} is retired; {lost} messages went with it")


def _needs(targets: Sequence[str]) -> Needs:
    return needs_of({target: load(target) for target in targets})


async def _compared(broker: Broker, needs: Needs) -> Sequence[Row]:
    differences = await need(broker, Inspects).differences(list(needs.topics), list(needs.sources))
    return compared(needs, differences, await need(broker, Browses).sources())


def _count(rows: Sequence[Row], state: str) -> int:
    return sum(row.state == state for row in rows)


def _refuse_running(ends: Sequence[tuple[Source, Lag]]) -> None:
    busy = [f"{lag.leased} of {source}" for source, lag in ends if lag.leased]
    if busy:
        raise Failure(
            f"workers hold messages: {', '.join(busy)}; stop them first (what a killed worker held"
            " comes back when its lease ends)",
            fix="callcast queues",
        )


async def _ended(broker: Retires, source: Source) -> str:
    """End one source; why it could not be ended, if it could not."""
    try:
        await broker.retire(source)
    except CallcastError as error:
        return str(error)
    return ""


def _result(error: str, *, yes: bool) -> str:
    return error or ("retired" if yes else "would be lost")


def _loss(source: Source, lag: Lag, result: str) -> dict[str, object]:
    return {
        "topic": source.topic,
        "group": source.group,
        "ready": lag.ready,
        "in_flight": lag.leased,
        "delayed": lag.delayed,
        "dead": lag.dead,
        "result": result,
    }
