"""The command ``callcast demo``."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from callcast.cli.demo.account import Account, Verdict
from callcast.cli.demo.house import examples
from callcast.cli.failure import FINDINGS, Failure, Interrupted
from callcast.cli.output import note
from callcast.runtime.registry import sqlite_path

ORDERS_MIN = 20
"""Fewer leave some fault without anything to hit."""

HIT = {
    "fulfilment killed": "messages in its hands:",
    "payments slow": "attempts that timed out:",
    "payments failing": "attempts that failed:",
    "delivered twice": "duplicates that the inbox knew:",
    "poison order": "dead letters:",
}
"""What `in_flight` counts for each kind of fault."""


@click.command(
    epilog="""\b
Examples:
  callcast demo
  callcast demo --orders 50 --seed 7 -o json
  callcast demo --broker amqp://guest:guest@localhost/demo
  callcast demo --broker kafka://localhost:9092

No server, no account: five processes and a SQLite file in a folder that goes when it ends. On a
server of yours it uses groups of its own, and ends them when it ends.
Exit code 1 when an order was lost, an effect came twice, or a fault hit nothing.
"""
)
@click.option("--broker", "url", metavar="URL", help="Another broker than a file of its own.")
@click.option(
    "--orders",
    type=click.IntRange(min=ORDERS_MIN),
    default=300,
    show_default=True,
    help="How many orders the client places.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="What is in the orders.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The account in words, or as JSON on stdout.",
)
@click.pass_context
def demo(ctx: click.Context, *, url: str | None, orders: int, seed: int, form: str) -> None:
    """Run a shop of five services, break it on purpose, and count every order.

    A client places orders over HTTP while fulfilment is killed, payments gets slow and then
    fails, messages are delivered twice, and one order cannot be handled until a dead letter is
    redriven. The account at the end says what became of each order.
    """
    _check_folder(url)
    verdict, ways = asyncio.run(_played(url, orders, seed))
    if form == "json":
        click.echo(json.dumps(msgspec.to_builtins(verdict.account), indent=2))
        for problem in verdict.problems:
            note(f"WRONG: {problem}")
    else:
        click.echo("\n".join([in_words(verdict), *ways]))
    if verdict.problems:
        ctx.exit(FINDINGS)


def _check_folder(url: str | None) -> None:
    """Refuse a SQLite file in a folder that is not there."""
    if url is None or urlsplit(url).scheme != "sqlite":
        return
    folder = Path(sqlite_path(url)).parent
    if not folder.is_dir():
        raise Failure(f"there is no folder {folder} for the file", fix=f"mkdir -p {folder}")


async def _played(url: str | None, orders: int, seed: int) -> tuple[Verdict, Sequence[str]]:
    """Import and play: the shop is no part of callcast and is found first."""
    sys.path.insert(0, str(examples()))
    play = importlib.import_module("callcast.cli.demo.play")
    view = importlib.import_module("callcast.cli.demo.view").view_for_terminal()
    current = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if current is not None:
            loop.add_signal_handler(number, current.cancel)
    try:
        options = play.Options(broker=url, orders=orders, seed=seed)
        demo = play.Demo(options, view)
        verdict: Verdict = await demo.run()
    except asyncio.CancelledError:
        raise Interrupted from None
    finally:
        view.close()
    keepsake = importlib.import_module("callcast.cli.demo.keepsake")
    ways: Sequence[str] = keepsake.ways_to_look(demo.record, demo.order)
    return verdict, ways


def in_words(verdict: Verdict) -> str:
    """The account as sentences."""
    account = verdict.account
    taken = (
        f"{account.placed} orders were placed: {account.confirmed} confirmed,"
        f" {account.refused} refused, {account.unanswered} without an answer."
    )
    became = (
        f"Of the {account.confirmed} confirmed, {account.fulfilled} were packed and mailed once,"
        f" {account.dead} are in the dead letters, {account.lost} are lost."
    )
    lines = [
        taken,
        became,
        f"{account.twice} effects came twice; orders redriven: {account.redriven}.",
        "Meanwhile:",
        *(
            f"  {fault.at:5.1f} s  {fault.kind}, {HIT[fault.kind]} {fault.in_flight}"
            for fault in account.faults
        ),
        *(f"WRONG: {problem}" for problem in verdict.problems),
    ]
    if not verdict.problems:
        lines.append(_why(account))
    return "\n".join(lines)


def _why(account: Account) -> str:
    return (
        f"Every one of the {account.confirmed} confirmed orders is accounted for: an order and its"
        " message\ncommit together (outbox), a message that comes again changes nothing (inbox),"
        " a killed worker's\nmessages go to the next one (leases), what was half done is undone"
        " (casts), and what cannot be\nhandled waits to be redriven (dead letters)."
    )
