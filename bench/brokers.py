"""callcast on RabbitMQ and Kafka against FastStream, Celery and the raw drivers.

``python bench/brokers.py --broker rabbitmq [--measure throughput] [--rounds N] [--messages N]
[--peer NAME] [--quick] [--url URL] [--output FOLDER]``: prints rates and ratios, writes one file
for each measure into ``bench/results``, exits 1 when a goal is missed. `--quick` only shows that it
runs: one round of few messages; then, and when `--peer` leaves others out, nothing is written.
Without `--url` it starts a server of its own by ``scripts/servers``; what it makes on a given one
stays there. All measures take some minutes; `--measure waiting`, with a million messages, is done
only when asked for.

Every contender publishes and consumes in processes of its own, in turn with the others. Everyone
carries the same 256 bytes of JSON through queues of the same kind with the same arguments,
persistent, confirmed, decoded into the same Struct, counted, and acknowledged after that. callcast
runs through `Bus` with all its defaults.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brokers_server import served
from brokers_sizes import Sizes
from harness import RESULTS, Report

MODULES = {
    "rabbitmq": "brokers_rabbitmq",
    "rabbitmq-3.10": "brokers_rabbitmq",
    "kafka": "brokers_kafka",
}
LONG = frozenset({"waiting"})
"""Only when asked for."""


@dataclass(frozen=True)
class Choice:
    """What is measured, and where the results go."""

    broker: str
    measures: Sequence[str]
    sizes: Sizes
    url: str


def measures_of(broker: str) -> Mapping[str, Callable[[str, str, Sizes], Report]]:
    """What can be measured on it, by name; of the others not even the driver has to be there."""
    found: Mapping[str, Callable[[str, str, Sizes], Report]]
    found = importlib.import_module(MODULES[broker]).MEASURES
    return found


def run(choice: Choice) -> Iterator[Report]:
    """One report after the other, as soon as it is there."""
    known = measures_of(choice.broker)
    with served(choice.broker, choice.url) as (url, version):
        for name in choice.measures:
            report = known[name](choice.broker, url, choice.sizes)
            report.settings = {"server": version, **report.settings}
            yield report


def chosen(options: argparse.Namespace) -> Choice:
    known = measures_of(options.broker)
    usual = [name for name in known if options.quick or name not in LONG]
    measures = options.measure or usual
    for name in measures:
        if name not in known:
            raise SystemExit(f"--broker {options.broker} measures {', '.join(known)}; not {name}")
    sizes = Sizes(
        options.rounds, options.messages, peers=options.peer or (), is_quick=options.quick
    )
    return Choice(options.broker, measures, sizes, options.url)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=MODULES, default="rabbitmq")
    parser.add_argument("--measure", action="append", help="several times for several; else all")
    parser.add_argument("--peer", action="append", help="only this one (and that one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--url", default="", help="of a server to use as it is")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args()
    is_whole = not options.quick and not options.peer
    with tempfile.TemporaryDirectory() as nowhere:
        folder = options.output if is_whole else Path(nowhere)
        ends = [report.finish(folder) for report in run(chosen(options))]
    return max(ends) if is_whole else 0


if __name__ == "__main__":
    sys.exit(main())
