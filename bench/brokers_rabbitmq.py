"""What ``bench/brokers.py`` measures on RabbitMQ."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from brokers_processes import Child, ask
from brokers_server import CLASSIC, declare, must_hold, quorum_arguments, unique, work_queue
from brokers_sizes import Sizes
from brokers_work import WARM, Task
from harness import Figure, Goal, Report, alternate_all, versions
from msgspec.structs import replace

from callcast.brokers.rabbitmq import RabbitBroker

LABELS = {"callcast": "callcast", "faststream": "FastStream", "pika": "pika", "celery": "Celery"}
SHARES = {"callcast": 1.0, "faststream": 0.4, "pika": 1.0, "celery": 0.1}
"""Of the messages: so many that each works for about as long as the others."""
WITHOUT_MANY = frozenset({"celery"})
"""Who publishes one by one only."""
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Contender:
    """One who carries messages, in a queue of its own that serves all its rounds."""

    task: Task
    queue: str
    sizes: Sizes

    @property
    def label(self) -> str:
        return LABELS[self.task.contender]

    def throughput(self) -> Figures:
        """Publish, many in flight and one by one, then consume all of it."""
        name = self.task.contender
        share = int(self.sizes.messages * SHARES[name])
        each = self.sizes.one_by_one
        figures: dict[str, float] = {}
        total = each + WARM
        if name not in WITHOUT_MANY:
            sent = self._ask("publish", share)
            figures |= {"publish": share / sent["wall"], "publish cpu": cpu(sent, share)}
            total += share + WARM
        else:
            total += share - each
            each = share
        sent = ask(replace(self.task, part="publish", count=each, in_flight=1))
        figures["await each"] = each / sent["wall"]
        must_hold(self.task.url, self.queue, total)
        done = self._ask("consume", total)
        must_hold(self.task.url, self.queue, 0)
        figures |= {"consume": total / done["wall"], "consume cpu": cpu(done, total)}
        return {**figures, "memory, MiB": done["memory"]}

    def latency(self) -> Figures:
        """Milliseconds from publish in one process to the handler in another."""
        count = self.sizes.latencies
        with Child(replace(self.task, part="listen", count=count)) as listener:
            listener.ready()
            self._ask("send", count)
            cuts = statistics.quantiles(listener.result()["late"], n=100)
        must_hold(self.task.url, self.queue, 0)
        return {"p50, ms": cuts[49], "p99, ms": cuts[98]}

    def waiting(self) -> Figures:
        """A worker's memory and the rates while all the others wait; as many wait afterwards."""
        count = self.sizes.few // 2
        done = self._ask("consume", count)
        sent = self._ask("publish", count - WARM)
        return {
            "memory, MiB": done["memory"],
            "consume": count / done["wall"],
            "publish": (count - WARM) / sent["wall"],
        }

    def fill(self, count: int) -> None:
        self._ask("publish", count - WARM)

    def _ask(self, part: str, count: int) -> Mapping[str, float]:
        return ask(replace(self.task, part=part, count=count))


def cpu(result: Mapping[str, float], count: int) -> float:
    """Seconds of the process per 10,000 messages."""
    return result["cpu"] * 10_000 / count


def contender(name: str, url: str, sizes: Sizes, *, is_classic: bool = False) -> Contender:
    """With its queue declared: all have the same arguments."""
    place = unique(name)
    if is_classic:
        declare(url, place, CLASSIC)
        task = Task(name, "", url, place, arguments=CLASSIC, is_foreign=True)
    else:
        task = Task(name, "", url, place, arguments=quorum_arguments(place))
    if name == "callcast":
        ask(replace(task, part="subscribe"))
        return Contender(task, place if is_classic else work_queue(place), sizes)
    declare(url, place, task.arguments)
    return Contender(task, place, sizes)


def in_turn(
    contenders: Sequence[Contender],
    measure: Callable[[Contender], Figures],
    report: Report,
    *,
    rounds: int,
) -> None:
    """Add the figures of all rounds to the report."""
    report.figures |= alternate_all(
        {one.label: lambda one=one: measure(one) for one in contenders},
        rounds=rounds,
        warmups=contenders[0].sizes.warmups,
    )


def throughput(broker: str, url: str, sizes: Sizes) -> Report:
    names = sizes.those("faststream", "pika", "celery")
    report = opened(broker, sizes, names)
    contenders = [contender(name, url, sizes) for name in names]
    in_turn(contenders, Contender.throughput, report, rounds=sizes.rounds)
    goals = Goals(report, f"{broker}, quorum")
    many, few = (5.0, 6.0) if broker == "rabbitmq-3.10" else (3.5, 6.0)
    goals.rate("publish", "FastStream", many)
    goals.rate("consume", "FastStream", few)
    goals.rate("publish", "pika", 0.8)
    goals.rate("consume", "pika", 1.0)
    goals.cost("publish cpu", "FastStream", 1 / 4)
    goals.cost("consume cpu", "FastStream", 1 / 6)
    goals.cost("memory, MiB", "FastStream", 1.0)
    for what, peer in (  # stated, no goal
        ("await each", "FastStream"),
        ("await each", "pika"),
        ("await each", "Celery"),
        ("consume", "Celery"),
        ("publish cpu", "pika"),
        ("consume cpu", "pika"),
        ("consume cpu", "Celery"),
        ("memory, MiB", "Celery"),
    ):
        goals.state(what, peer)
    return report


def classic(broker: str, url: str, sizes: Sizes) -> Report:
    """Queues that others made, which callcast is bound to: its own are quorum queues."""
    names = sizes.those("faststream", "pika")
    report = opened(f"{broker}_classic", sizes, names)
    contenders = [contender(name, url, sizes, is_classic=True) for name in names]
    in_turn(contenders, Contender.throughput, report, rounds=sizes.rounds)
    goals = Goals(report, f"{broker}, classic")
    goals.rate("publish", "FastStream", 2.0)
    goals.rate("consume", "FastStream", 4.0)
    for what in ("publish", "consume"):
        goals.state(what, "pika")
    return report


def latency(broker: str, url: str, sizes: Sizes) -> Report:
    names = sizes.those("faststream", "pika")
    report = opened(f"{broker}_latency", sizes, names)
    contenders = [contender(name, url, sizes) for name in names]
    in_turn(contenders, Contender.latency, report, rounds=sizes.latency_rounds)
    goals = Goals(report, f"{broker}, 200 a second")
    goals.cost("p50, ms", "FastStream", 0.8)
    goals.cost("p99, ms", "FastStream", 1.0)
    for what in ("p50, ms", "p99, ms"):
        goals.state(what, "pika")
    return report


def waiting(broker: str, url: str, sizes: Sizes) -> Report:
    """Few and many messages in the queue."""
    report = opened(f"{broker}_waiting", sizes, ["callcast"])
    filled: dict[str, Contender] = {}
    for count in (sizes.few, sizes.many):
        one = filled[f"{count:,} waiting"] = contender("callcast", url, sizes)
        one.fill(count)
    report.figures |= alternate_all(
        {name: one.waiting for name, one in filled.items()},
        rounds=sizes.waiting_rounds,
        warmups=sizes.warmups,
    )
    few, many = filled
    for what, relation, limit in (
        ("memory, MiB", "<=", 1.1),
        ("consume", ">=", 0.8),
        ("publish", ">=", 0.8),
    ):
        measured = report.ratio(f"{many}: {what}", f"{few}: {what}").median
        name = f"{broker}, {what.partition(',')[0]}, {many}: {few}"
        report.goals.append(Goal(name, measured, relation, limit, "x"))
    return report


class Goals:
    """What callcast's figures must be, as shares of a peer's, if that one takes part."""

    def __init__(self, report: Report, what: str) -> None:
        self._report = report
        self._what = what

    def rate(self, what: str, peer: str, least: float) -> None:
        self._add(what, peer, (">=", least))

    def cost(self, what: str, peer: str, most: float) -> None:
        self._add(what, peer, ("<=", most))

    def state(self, what: str, peer: str) -> Figure | None:
        """Only that."""
        pair = (f"callcast: {what}", f"{peer}: {what}")
        return self._report.ratio(*pair) if pair[1] in self._report.figures else None

    def _add(self, what: str, peer: str, goal: tuple[str, float]) -> None:
        ratio = self.state(what, peer)
        if ratio is not None:
            name = f"{self._what}, {what}: {peer}"
            self._report.goals.append(Goal(name, ratio.median, *goal, "x"))


def opened(bench: str, sizes: Sizes, names: Sequence[str]) -> Report:
    prefetch = inspect.signature(RabbitBroker.consume).parameters["prefetch"].default
    settings = {
        **sizes.plain(),
        "prefetch_of_callcast": prefetch,
        "shares_of_messages": {LABELS[name]: share for name, share in SHARES.items()},
    }
    return Report(
        bench.replace("-", "_").replace(".", "_"),
        "",
        versions(*dict.fromkeys([*names, "pika", "msgspec"])),
        settings,
    )


Measure = Callable[[str, str, Sizes], Report]
MEASURES: dict[str, Measure] = {
    "throughput": throughput,
    "classic": classic,
    "latency": latency,
    "waiting": waiting,
}
MEASURES_OF_OLD: dict[str, Measure] = {"throughput": throughput}
