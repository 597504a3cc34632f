"""``callcast replay``: hand a group again what was published in a time."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence

import click
import msgspec

from callcast.cli.failure import Failure, Partial
from callcast.cli.groups import of_group
from callcast.cli.opening import broker_option, on_broker, operator
from callcast.cli.output import emit, emit_one, note, output_option
from callcast.cli.replaying import Outcome, Replay, Terms, Window, pages
from callcast.cli.times import FORMS, shown, time_of
from callcast.ports.broker import Broker, Glimpse
from callcast.ports.clock import Clock
from callcast.runtime.chance import Ids
from callcast.runtime.clock import AsyncioClock

COLUMNS = ("position", "published", "id", "key", "size_bytes")
PROGRESS = 1_000
"""Replayed messages between two lines of progress."""


def window_options(function: Callable[..., None]) -> Callable[..., None]:
    """TOPIC, ``--from``, ``--to``, ``--after`` and ``--last`` as `window`."""

    @click.argument("topic")
    @click.option("--from", "since", metavar="TIME", help="Published then or later.")
    @click.option("--to", "until", metavar="TIME", help="Published before then. Defaults to now.")
    @click.option("--after", default="", metavar="POSITION", help="Only behind this one.")
    @click.option("--last", default="", metavar="POSITION", help="Only up to and with this one.")
    @functools.wraps(function)
    def choose(
        *,
        topic: str,
        since: str | None,
        until: str | None,
        after: str,
        last: str,
        **rest: object,
    ) -> None:
        function(window=_window(topic, since, until, after=after, last=last), **rest)

    return choose


def terms_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--to-group``, ``--rate`` and ``--new-ids`` as `terms`."""

    @click.option("--to-group", required=True, help="The group that gets them, and no other.")
    @click.option("--rate", type=click.FloatRange(min=0.0), default=0.0, help="At most N a second.")
    @click.option(
        "--new-ids",
        is_flag=True,
        help="As new messages: also what the group's inbox knows is handled again.",
    )
    @functools.wraps(function)
    def choose(*, to_group: str, rate: float, new_ids: bool, **rest: object) -> None:
        new_id = Ids() if new_ids else None
        function(terms=Terms(group=to_group, by=operator(), rate=rate, new_id=new_id), **rest)

    return choose


@click.command(
    epilog=f"""\b
Examples:
  callcast replay orders.placed --to-group mailing --from 10:00 --to 10:15 --dry-run
  callcast replay orders.placed --to-group mailing --from 2h --rate 100
  callcast replay orders.placed --to-group mailing --after 1200 --last 1300

Times: {FORMS}.
Positions are what --dry-run lists. Exit code 5 when it stopped midway; it says how to go on.
"""
)
@broker_option
@output_option
@window_options
@terms_options
@click.option("--dry-run", is_flag=True, help="List what would be replayed, and change nothing.")
def replay(*, url: str | None, form: str, window: Window, terms: Terms, dry_run: bool) -> None:
    """Publish again what TOPIC has kept of a window, to one group only.

    Ids stay, so that handlers with a Transaction do again only what they have not done: a group
    that lost its data, or that handled them wrongly, needs --new-ids.
    """
    if dry_run:
        records = on_broker(url, lambda broker, _: _listed(broker, window, terms.group))
        emit(records, form, COLUMNS)
        note(f"{len(records)} would be replayed to {terms.group}")
        return

    async def work(broker: Broker, clock: Clock) -> Outcome:
        await of_group(broker, terms.group, window.topic)
        return await Replay(broker, window, terms, clock=clock)(_tell)

    outcome = on_broker(url, work)
    emit_one(msgspec.structs.asdict(outcome), form)
    if outcome.error:
        raise Partial(
            f"stopped after {outcome.replayed}: {outcome.error}", fix=_rest(outcome, window)
        )


def _window(topic: str, since: str | None, until: str | None, *, after: str, last: str) -> Window:
    """The window that was named; a `Failure` for one without a beginning, or that ends before."""
    now = AsyncioClock().wall()
    if since is None and not after:
        raise Failure("say from when: --from TIME, or --after POSITION", fix=FORMS)
    begin = 0.0 if since is None else time_of(since, now)
    end = now if until is None else min(now, time_of(until, now))
    if begin >= end:
        raise Failure(
            f"the window is empty: from {shown(begin)} to {shown(end)} (now at the latest)",
            fix=FORMS,
        )
    return Window(topic, begin, end, after, last)


async def _listed(broker: Broker, window: Window, group: str) -> Sequence[dict[str, object]]:
    await of_group(broker, group, window.topic)
    return [_record(one) async for page in pages(broker, window) for one in page]


def _record(glimpse: Glimpse) -> dict[str, object]:
    message = glimpse.message
    return {
        "position": glimpse.position,
        "published": shown(glimpse.at),
        "id": message.id,
        "type": message.type,
        "key": message.key,
        "size_bytes": len(message.body),
    }


def _tell(count: int) -> None:
    if count % PROGRESS == 0:
        note(f"{count} so far")


def _rest(outcome: Outcome, window: Window) -> str:
    """The command that goes on where this one stopped: the same end, behind the last that went."""
    words = ["callcast", "replay", outcome.topic, "--to-group", outcome.group]
    words += ["--from", shown(window.since)] if window.since or not outcome.position else []
    words += ["--to", shown(window.until)]
    words += ["--after", outcome.position] if outcome.position else []
    words += ["--last", window.last] if window.last else []
    return shlex.join(words)
