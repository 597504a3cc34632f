"""What publishing and consuming on a broker spend their CPU time on.

``python bench/brokers_profile.py publish|consume [--broker rabbitmq] [--contender callcast]
[--calls] [--url URL]``: prints the rate and the CPU time per message, of the process and of the
program's own thread alone; with `--calls` also in whose code it is spent, and in which functions of
each thread. A profiler overstates what calls much: its shares say where to look, not how long it
takes. Time in C counts for who called it.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import pstats
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from brokers import MODULES
from brokers_processes import ask
from brokers_server import served
from brokers_sizes import Sizes
from brokers_work import WARM, Result, Task
from msgspec.structs import replace

COUNT = 40_000
FUNCTIONS = 30
IDLE = 0.1
"""Seconds of CPU: whoever takes less is not shown."""
PARTS = (
    ("pika: frames to bytes and back", ("/pika/spec", "/pika/data", "/pika/frame", "/pika/amqp_")),
    ("pika: the rest", ("/pika/",)),
    ("FastStream, aio-pika, aiormq", ("/faststream/", "/fast_depends/", "/aio_pika/", "/aiormq/")),
    (
        "callcast: AMQP frames",
        tuple(f"/rabbitmq/{n}.py" for n in ("frames", "deliveries", "tables", "stream")),
    ),
    ("callcast: RabbitMQ adapter", ("/callcast/brokers/rabbitmq/",)),
    ("callcast: Kafka adapter", ("/callcast/brokers/kafka/",)),
    ("callcast: policies", ("/callcast/policies/",)),
    ("callcast: runtime", ("/callcast/runtime/",)),
    ("callcast: the rest", ("/callcast/",)),
    ("asyncio", ("/asyncio/", "/selectors.py")),
)
"""In whose code the time is, by what the path of the file has in it; the first that fits."""
Function = tuple[str, int, str]


class Profiles:
    """One profile for each thread that runs meanwhile."""

    def __init__(self) -> None:
        self.by_thread: dict[str, cProfile.Profile] = {}

    def install(self) -> None:
        """Profile every thread that is started from now on."""
        run = threading.Thread.run

        def profiled(thread: threading.Thread) -> None:
            self.under(thread.name, lambda: run(thread))

        threading.Thread.run = profiled  # type: ignore[method-assign]

    def under(self, name: str, call: Callable[[], object]) -> None:
        profile = self.by_thread[name] = cProfile.Profile(time.thread_time)
        profile.runcall(call)

    def show(self) -> None:
        """Whose code first, then the functions of each thread that does something."""
        shares: Counter[str] = Counter()
        busy: list[tuple[str, pstats.Stats]] = []
        for name, profile in self.by_thread.items():
            stats = pstats.Stats(profile)
            found = owners(stats)
            shares.update(found)
            if sum(found.values()) > IDLE:
                busy.append((name, stats))
        total = sum(shares.values())
        for owner, seconds in shares.most_common():
            print(f"{seconds / total:6.1%}  {seconds / COUNT * 1e6:6.2f} us  {owner}")
        for name, stats in busy:
            print(f"\nthread {name}")
            stats.sort_stats("tottime").print_stats(FUNCTIONS)


def owners(stats: pstats.Stats) -> Counter[str]:
    """Seconds in whose code; what is written in C has no file, and counts for its callers."""
    found: Counter[str] = Counter()
    told: dict[Function, tuple[int, int, float, float, dict[Function, tuple[float, ...]]]]
    told = stats.stats  # type: ignore[attr-defined]
    for (path, _, _), (_, _, seconds, _, callers) in told.items():
        if path != "~":
            found[owner_of(path)] += seconds
            continue
        for (caller, _, _), times in callers.items():
            found[owner_of(caller)] += times[2]
    return found


def owner_of(path: str) -> str:
    fits: Iterable[str] = (name for name, pieces in PARTS if any(piece in path for piece in pieces))
    return next(iter(fits), "other")


def work_of(options: argparse.Namespace, url: str) -> Callable[[], Result]:
    """What is to be profiled, with all that it needs in place."""
    contender = importlib.import_module(MODULES[options.broker]).contender
    one = contender(options.contender, url, Sizes(1, COUNT))
    task: Task = replace(one.task, part=options.what, count=COUNT)
    if options.what == "consume":
        ask(replace(task, part="publish", count=COUNT - WARM))
    part = importlib.import_module(f"brokers_{options.contender}").WORK[options.what]
    return lambda: part(task)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["publish", "consume"])
    parser.add_argument("--broker", choices=MODULES, default="rabbitmq")
    parser.add_argument("--contender", default="callcast")
    parser.add_argument("--calls", action="store_true", help="profile")
    parser.add_argument("--url", default="", help="of a server to use as it is")
    options = parser.parse_args()
    with served(options.broker, options.url) as (url, _):
        work = work_of(options, url)
        if options.calls:
            profiles = Profiles()
            profiles.install()
            profiles.under("main", work)
            profiles.show()
            return 0
        start = time.thread_time()
        result = work()
        own = (time.thread_time() - start) / COUNT * 1e6
        print(
            f"{options.contender}, {options.what}: {COUNT / result['wall']:,.0f}/s; CPU per message"
            f" {result['cpu'] / COUNT * 1e6:.1f} us; of the program's thread, with start and end,"
            f" {own:.1f} us"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
