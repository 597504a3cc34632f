"""The embedded broker against huey, persist-queue, queue-sqlite and raw sqlite3.

``python bench/embedded.py [--rounds N] [--messages N] [--quick]``: prints rates and ratios, writes
``bench/results/embedded.json``, exits 1 when a goal is missed. `--quick` only shows that it runs:
one round of few messages, written to a folder that is deleted.

Everyone stores the same 256 bytes of JSON on the same disk, decodes them into the same Struct,
counts, and acknowledges after that. callcast runs through `Bus` with all its defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path

import embedded_callcast as ours
import embedded_peers as theirs
from harness import RESULTS, Figure, Goal, Report, alternate_all, versions
from work import BODY_BYTES, CUSTOMERS, encode, folder, order, orders

from callcast import Bus

CHILD = Path(__file__).with_name("embedded_child.py")
RATE = 200
"""Messages a second while the latency is measured."""
CASES = {
    "callcast": ours.Case(),
    "callcast, keyed": ours.Case(ours.PLACED_KEYED),
    "callcast, two groups": ours.Case(groups=2),
    "callcast, keyed, two groups": ours.Case(ours.PLACED_KEYED, groups=2),
    "callcast, suspends": ours.Case(suspends=True),
}
Figures = Mapping[str, float]


class Sizes:
    """How much of everything."""

    def __init__(self, rounds: int, messages: int, *, is_quick: bool) -> None:
        self.rounds = 1 if is_quick else rounds
        self.warmups = 0 if is_quick else 1
        self.messages = 500 if is_quick else messages
        self.one_by_one = 50 if is_quick else 1_500
        self.others = 100 if is_quick else 4_000
        self.latencies = 40 if is_quick else 600
        self.latency_rounds = 1 if is_quick else 5
        self.idle_seconds = 1 if is_quick else 20
        self.many = 4_000 if is_quick else 1_000_000
        self.few = 2_000 if is_quick else 10_000
        self.memory_rounds = 1 if is_quick else 5

    def plain(self) -> dict[str, object]:
        return dict(vars(self))


def fresh(run: Callable[[Path], Figures]) -> Callable[[], Figures]:
    """In a new folder each time."""

    def one_round() -> Figures:
        with folder() as path:
            return run(path)

    return one_round


def loop(run: Callable[[Path], Coroutine[object, object, Figures]]) -> Callable[[], Figures]:
    return fresh(lambda path: asyncio.run(run(path)))


def throughput(sizes: Sizes) -> dict[str, Figure]:
    """Messages a second, and CPU seconds per 10,000."""
    count = sizes.messages

    async def await_each(path: Path) -> Figures:
        return {"await each": await ours.await_each(path, sizes.one_by_one)}

    contenders: dict[str, Callable[[], Figures]] = {}
    for name, case in CASES.items():
        contenders[name] = loop(partial(_both, case=case, count=count))
    for name, (peer, share) in theirs.PEERS.items():
        contenders[name] = fresh(partial(peer, count=int(count * share)))
    contenders["callcast, one by one"] = loop(await_each)
    for rows, number in ((theirs.ROWS, count), (1, sizes.one_by_one)):
        contenders[f"raw sqlite3, {rows} per transaction"] = fresh(
            partial(_raw, count=number, rows=rows)
        )
    return alternate_all(contenders, rounds=sizes.rounds, warmups=sizes.warmups)


async def _both(path: Path, *, case: ours.Case, count: int) -> Figures:
    return await ours.both(path, case, count)


def _raw(path: Path, *, count: int, rows: int) -> Figures:
    return {"publish": theirs.raw_publish(path, count, rows=rows)}


def lanes(sizes: Sizes) -> dict[str, Figure]:
    """Seconds for the other keys, without and with a slow one among them."""

    async def others(path: Path, *, is_slow: bool) -> Figures:
        return {"others, s": await ours.others(path, sizes.others, is_slow=is_slow)}

    contenders = {
        "alone": loop(partial(others, is_slow=False)),
        "beside a slow key": loop(partial(others, is_slow=True)),
    }
    return alternate_all(contenders, rounds=sizes.rounds, warmups=sizes.warmups)


class Child:
    """The worker in the other process."""

    def __init__(self, part: str, path: Path, number: int) -> None:
        command = [sys.executable, str(CHILD), part, str(path), str(number)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the worker did not start")

    def result(self) -> list[float]:
        out, _ = self._process.communicate(timeout=300.0)
        if self._process.returncode:
            raise RuntimeError("the worker failed")
        return json.loads(out)


def latency(sizes: Sizes) -> dict[str, Figure]:
    """Milliseconds from publish in one process to the handler in another."""
    contenders = {
        "callcast": fresh(partial(_callcast_latency, count=sizes.latencies)),
        "huey": fresh(partial(_huey_latency, count=sizes.latencies)),
    }
    return alternate_all(contenders, rounds=sizes.latency_rounds, warmups=0)


def _callcast_latency(path: Path, count: int) -> Figures:
    child = Child("callcast", path, count)
    child.ready()

    async def publish() -> None:
        async with Bus(ours.url(path), name="shop") as bus:
            start = time.monotonic()
            for number in range(count):
                await asyncio.sleep(start + number / RATE - time.monotonic())
                await bus.publish(ours.PLACED, order(number, sent_ns=time.monotonic_ns()))

    asyncio.run(publish())
    return _percentiles(child.result())


def _huey_latency(path: Path, count: int) -> Figures:
    queue = theirs.open_huey(path)

    @queue.task(name="handle")
    def handle(_body: bytes) -> None:
        raise AssertionError("the worker is in the other process")

    child = Child("huey", path, count)
    child.ready()
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / RATE - time.monotonic()))
        handle(encode(order(number, sent_ns=time.monotonic_ns())))
    seen = child.result()
    queue.storage.close()
    return _percentiles(seen)


def _percentiles(milliseconds: list[float]) -> Figures:
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"p50, ms": cuts[49], "p99, ms": cuts[98]}


def idle(sizes: Sizes) -> dict[str, Figure]:
    """Percent of one core that a worker takes which has nothing to do."""
    with folder() as path:
        (share,) = Child("idle", path, sizes.idle_seconds).result()
    return {"callcast: idle CPU, %": Figure([share * 100])}


def waiting(sizes: Sizes) -> dict[str, Figure]:
    """A worker's memory and the rates, with few and with many messages waiting."""
    batch = sizes.few // 2
    with folder() as few, folder() as many:
        for path, number in ((few, sizes.few), (many, sizes.many)):
            asyncio.run(ours.subscribe(path, ours.Case()))
            for _ in range(number // batch):
                asyncio.run(ours.publish(path, ours.Case(), orders(batch)))
        contenders = {
            f"{name} waiting": partial(_take_and_refill, path, batch)
            for name, path in ((f"{sizes.few:,}", few), (f"{sizes.many:,}", many))
        }
        return alternate_all(contenders, rounds=sizes.memory_rounds, warmups=sizes.warmups)


def _take_and_refill(path: Path, batch: int) -> Figures:
    peak, rate = Child("memory", path, batch).result()
    watch = asyncio.run(ours.publish(path, ours.Case(), orders(batch)))
    return {"memory, MiB": peak, "consume": rate, "publish": batch / watch.wall}


def throughput_goals(report: Report) -> list[Goal]:
    def goal(name: str, pair: tuple[str, str], limit: float) -> Goal:
        return Goal(name, report.ratio(*pair).median, ">=", limit, "x")

    raw, one = f"raw sqlite3, {theirs.ROWS} per transaction", "raw sqlite3, 1 per transaction"
    goals = [
        goal("embedded, publish, 500 in flight: queue-sqlite",
             ("callcast: publish", "queue-sqlite: publish"), 4.0),
        goal(f"embedded, publish, 500 in flight: {raw}",
             ("callcast: publish", f"{raw}: publish"), 0.6),
        goal(f"embedded, publish, await each: {one}",
             ("callcast, one by one: await each", f"{one}: publish"), 0.5),
    ]  # fmt: skip
    for case, name in (("callcast", "consume"), ("callcast, keyed", "consume, keyed")):
        for peer, limit in (("huey", 8.0), ("queue-sqlite", 1.6)):
            pair = (f"{case}: consume", f"{peer}: consume")
            goals.append(goal(f"embedded, {name}: {peer}", pair, limit))
    suspends = "embedded, consume, handler suspends once: queue-sqlite"
    goals.append(goal(suspends, ("callcast, suspends: consume", "queue-sqlite: consume"), 1.0))
    cpu = report.figures["callcast: consume cpu"].median
    goals.append(Goal("embedded, CPU per 10,000 consumed", cpu, "<=", 0.16, "s"))
    for peer in ("persist-queue: consume", "persist-queue: publish"):  # stated, no goal
        report.ratio(f"callcast: {peer.partition(': ')[2]}", peer)
    report.ratio("callcast: consume", "huey without sync: consume")
    report.ratio("callcast, two groups: consume", "callcast: consume")
    report.ratio("callcast, keyed, two groups: consume", "callcast, keyed: consume")
    return goals


def other_goals(report: Report, sizes: Sizes) -> list[Goal]:
    slow = report.ratio("beside a slow key: others, s", "alone: others, s").median
    p50 = report.ratio("huey: p50, ms", "callcast: p50, ms").median
    p99 = report.ratio("huey: p99, ms", "callcast: p99, ms").median
    few, many = f"{sizes.few:,} waiting", f"{sizes.many:,} waiting"
    memory = report.ratio(f"{many}: memory, MiB", f"{few}: memory, MiB").median
    goals = [
        Goal("embedded, other keys beside one with half the traffic", slow, "<=", 4.0, "x"),
        Goal("embedded, two processes, p50: huey", p50, ">=", 4.0, "x"),
        Goal("embedded, two processes, p99: huey", p99, ">=", 5.0, "x"),
        Goal("embedded, two processes, p99",
             report.figures["callcast: p99, ms"].median, "<=", 2.5, "ms"),
        Goal("embedded, idle CPU", report.figures["callcast: idle CPU, %"].median, "<=", 0.2, "%"),
        Goal(f"memory of a worker, {many}: {few}", memory, "<=", 1.1, "x"),
    ]  # fmt: skip
    for what in ("publish", "consume"):
        ratio = report.ratio(f"{many}: {what}", f"{few}: {what}").median
        goals.append(Goal(f"{what}, {many}: {few}", ratio, ">=", 0.8, "x"))
    return goals


def settings(sizes: Sizes) -> dict[str, object]:
    return {
        **sizes.plain(),
        "rates": "messages (of two groups: deliveries) per second of the wall",
        "cpu": "seconds of the process per 10,000",
        "body_bytes": BODY_BYTES,
        "keys": CUSTOMERS,
        "in_flight": ours.IN_FLIGHT,
        "latency_rate": RATE,
        "huey_poll_seconds": theirs.HUEY_POLL,
        "slow_handler_seconds": ours.SLOW_SECONDS,
        "durability": {
            "callcast": "WAL, synchronous FULL: a publish returns after its commit is synced",
            **theirs.SETTINGS,
        },
        "peers_share_of_messages": {name: share for name, (_, share) in theirs.PEERS.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    options = parser.parse_args()
    sizes = Sizes(options.rounds, options.messages, is_quick=options.quick)
    peers = ("huey", "persist-queue", "queue-sqlite", "msgspec")
    report = Report("embedded", "", versions("callcast", *peers), settings(sizes))
    for part in (throughput, lanes, latency, idle, waiting):
        report.figures |= part(sizes)
    report.goals = [*throughput_goals(report), *other_goals(report, sizes)]
    if not options.quick:
        return report.finish(RESULTS)
    with tempfile.TemporaryDirectory() as nowhere:
        report.finish(Path(nowhere))
    return 0


if __name__ == "__main__":
    sys.exit(main())
