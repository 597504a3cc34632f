"""The command group: commands load when they are named, and errors become sentences."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

import click

from callcast.cli.failure import Interrupted, failure_of

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "advise": ("advise.command:advise", "Say what should be a call and what a cast."),
        "alerts": ("alerts.command:alerts", "Print alert rules and a dashboard."),
        "backup": ("backup:backup", "Copy a broker's file while it is in use."),
        "demo": ("demo.command:demo", "Run a shop of five services, break it, and count."),
        "dlq": ("dlq:dlq", "Look at dead letters and send them again."),
        "doctor": ("doctor:doctor", "Check this installation and this configuration."),
        "explain": ("explain:explain", "Say what happens around a call, a cast, a handler."),
        "exporter": ("exporter:exporter", "Serve what waits at a broker to Prometheus."),
        "outbox": ("outbox:outbox", "Look at outboxes, and let parked keys go on."),
        "pause": ("pausing:pause", "Hand out nothing more to a group."),
        "queues": ("queues:queues", "Say what waits, runs, is delayed or dead."),
        "replay": ("replay:replay", "Hand a group again what was published in a time."),
        "resume": ("pausing:resume", "Let a paused group go on."),
        "run": ("run:run", "Serve calls and consume messages."),
        "top": ("top:top", "Show calls and casts as they go, from the local record."),
        "topology": ("topology:topology", "Compare what code needs with what the broker has."),
        "trace": ("trace:trace", "Show where one order has been, and what it waited for."),
    }
)
"""Name, where it is, and its line in the list, which is printed without loading anything."""


class Lazy(click.Group):
    """A group that knows its commands by name and loads one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None for a name that is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"callcast.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that is none is told with one that looks like it."""
        near = [] if args[0] in COMMANDS else get_close_matches(args[0], COMMANDS, n=1)
        if near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what it raises becomes a sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            raise failure from error


@click.group(
    name="callcast",
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  callcast demo
  callcast run shop.orders:service --broker sqlite:///shop.db --port 8001
  callcast queues -o json
""",
)
@click.version_option(package_name="callcast")
def main() -> None:
    """Everything services say to each other: call and wait, or cast and move on."""
