"""What publishing and consuming on the embedded broker spend their time on.

``python bench/embedded_profile.py publish|consume [--keyed] [--suspends] [--calls]``: prints the
rate and the CPU time per message, of the process and of the event loop's thread alone; with
`--calls` the functions that the loop's thread spends it in. A profiler overstates what calls much:
its shares say where to look, not how long it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import time
from pathlib import Path

import embedded_callcast as ours
from work import Stopwatch, folder, orders

COUNT = 40_000
FUNCTIONS = 40


def measured(path: Path, case: ours.Case, options: argparse.Namespace) -> None:
    asyncio.run(ours.subscribe(path, case))
    publish = ours.publish(path, case, orders(COUNT))
    if options.what == "publish":
        work = publish
    else:
        asyncio.run(publish)
        work = ours.consume(path, case, COUNT)
    if options.calls:
        profile = cProfile.Profile(time.thread_time)
        profile.runcall(asyncio.run, work)
        pstats.Stats(profile).sort_stats("tottime").print_stats(FUNCTIONS)
        return
    start = time.thread_time()
    watch: Stopwatch = asyncio.run(work)
    loop = time.thread_time() - start
    print(
        f"{options.what}: {COUNT / watch.wall:,.0f}/s; CPU per message"
        f" {watch.cpu / COUNT * 1e6:.1f} us, of which the loop's thread {loop / COUNT * 1e6:.1f} us"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["publish", "consume"])
    parser.add_argument("--keyed", action="store_true")
    parser.add_argument("--suspends", action="store_true")
    parser.add_argument("--calls", action="store_true", help="profile")
    options = parser.parse_args()
    event = ours.PLACED_KEYED if options.keyed else ours.PLACED
    with folder() as path:
        measured(path, ours.Case(event, suspends=options.suspends), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
