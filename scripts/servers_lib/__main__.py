"""The command: start, stop, status, kill, restart, freeze, thaw, install.

    scripts/servers start rabbitmq kafka     have them running; prints URL, version and log
    scripts/servers status -o json           all that was started, for programs
    scripts/servers start kafka-3 --instance mine      one beside the shared one, to be hurt
    scripts/servers kill kafka-3 2 --instance mine     SIGKILL its second node
    scripts/servers restart kafka-3 2 --instance mine  on the same ports and data
    scripts/servers stop                     all that was started

A server whose URL is in CALLCAST_TEST_<NAME>_URL (RABBITMQ, RABBITMQ_3_10, KAFKA, ...) is used as
it is: nothing is started for it, and nothing stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from . import lives
from .failure import Failed
from .kinds import KINDS, TOOLS
from .records import SHARED, Record, Which, load_all

FAILED = 3


def main() -> int:
    """Do what the arguments say; 3 when it could not be done, with a sentence on stderr."""
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except Failed as error:
        print(f"scripts/servers: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="scripts/servers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        made.set_defaults(run=run)
        return made

    for name, run in (("start", start), ("stop", stop)):
        made = command(name, run)
        made.add_argument("names", nargs="+" if run is start else "*", choices=[*KINDS, []])
        made.add_argument("--instance", type=instance, help="one of its own beside the shared one")
        made.add_argument("--for", type=int, dest="holder", metavar="PID", help=HOLDER)
        made.add_argument("-o", dest="output", choices=["text", "json"], default="text")
    command("status", status).add_argument(
        "-o", dest="output", choices=["text", "json"], default="text"
    )
    command("install", install).add_argument("names", nargs="+", choices=[*KINDS, *TOOLS])
    for name, run in (("kill", kill), ("restart", restart), ("freeze", freeze), ("thaw", thaw)):
        made = command(name, run)
        made.add_argument("name", choices=KINDS)
        made.add_argument("node", nargs="?", help="one of its nodes; without: all of it")
        made.add_argument("--instance", type=instance, default=SHARED)
    return top


HOLDER = "a process that uses it: the server ends with the last of those"


def instance(text: str) -> str:
    """A name that is fit for a file and for an Erlang node."""
    if not re.fullmatch(r"[a-z0-9-]{1,40}", text):
        raise argparse.ArgumentTypeError("use a-z, 0-9 and -")
    return text


def start(arguments: argparse.Namespace) -> None:
    """Have these servers running and print where they are."""
    lives.sweep()
    names: list[str] = arguments.names
    with ThreadPoolExecutor() as threads:  # most of a start is waiting
        starts = [threads.submit(have, name, arguments) for name in names]
        show([start.result() for start in starts], arguments.output)


def have(name: str, arguments: argparse.Namespace) -> Record:
    """That server, given or started."""
    which = Which(name, arguments.instance or SHARED)
    given = os.environ.get(variable(name))
    if given and which.instance == SHARED:
        return Record(name, "given", "", [], version="as given", url=given)
    return lives.start(KINDS[name](), which, arguments.holder)


def variable(name: str) -> str:
    """The environment variable that names a server of this kind."""
    return f"CALLCAST_TEST_{re.sub('[^A-Z0-9]', '_', name.upper())}_URL"


def stop(arguments: argparse.Namespace) -> None:
    """End these servers, or all, and remove their data; only what was started here."""
    records = load_all()
    if arguments.names:
        records = [record for record in records if record.name in arguments.names]
        which = arguments.instance or SHARED
        records = [record for record in records if record.instance == which]
    elif arguments.instance:
        records = [record for record in records if record.instance == arguments.instance]
    for record in records:
        lives.stop(record.which, arguments.holder)


def status(arguments: argparse.Namespace) -> None:
    """Print what was started here."""
    show(load_all(), arguments.output)


def install(arguments: argparse.Namespace) -> None:
    """Fetch and build what these servers need, or have these tools, and start nothing."""
    for name in arguments.names:
        if name in TOOLS:
            print(TOOLS[name]())
        else:
            KINDS[name]().install()


def kill(arguments: argparse.Namespace) -> None:
    """End a server or one node as a power cut would (SIGKILL)."""
    lives.kill(Which(arguments.name, arguments.instance), arguments.node)


def restart(arguments: argparse.Namespace) -> None:
    """Start a server or one node again, on the same ports and data."""
    lives.restart(Which(arguments.name, arguments.instance), arguments.node)


def freeze(arguments: argparse.Namespace) -> None:
    """Let a server or one node stand still with its connections open (SIGSTOP)."""
    lives.freeze(Which(arguments.name, arguments.instance), arguments.node)


def thaw(arguments: argparse.Namespace) -> None:
    """Let a server or one node go on (SIGCONT)."""
    lives.freeze(Which(arguments.name, arguments.instance), arguments.node, thaw=True)


def show(records: list[Record], output: str) -> None:
    """Print the servers, for people or for programs."""
    if output == "json":
        print(json.dumps({"servers": [described(record) for record in records]}, indent=1))
        return
    for record in records:
        which = "" if record.instance in {SHARED, "given"} else f" ({record.instance})"
        state = "" if record.instance == "given" or record.is_running else "  NOT RUNNING"
        print(f"{record.name}{which} {record.version}{state}  {record.url}")
        for key, value in record.more.items():
            if isinstance(value, str):
                print(f"    {key}: {value}")
        for node in record.nodes:
            if not node.helper:
                print(f"    node {node.name}: pid {node.pid}, log {node.log}")


def described(record: Record) -> dict[str, object]:
    """What programs may want to know of a server."""
    return {
        "name": record.name,
        "instance": record.instance,
        "version": record.version,
        "url": record.url,
        "is_running": record.instance == "given" or record.is_running,
        "folder": record.folder,
        **record.more,
        "nodes": [
            {
                "name": node.name,
                "pid": node.pid,
                "is_running": node.process.is_alive(),
                "url": node.url or record.url,
                "log": node.log,
            }
            for node in record.nodes
            if not node.helper
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
