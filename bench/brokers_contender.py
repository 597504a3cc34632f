"""What every contender of ``bench/brokers.py`` is measured by, whatever the broker."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from brokers_processes import PATIENT, Child, ask
from brokers_sizes import Sizes
from brokers_work import EARLY, Task
from harness import Figure, Goal, Report, alternate_all, versions
from msgspec.structs import replace

PEERS = {
    "callcast": ("callcast", "callcast"),
    "faststream": ("FastStream", "faststream"),
    "faststream_kafka": ("FastStream", "faststream"),
    "pika": ("pika", "pika"),
    "pika_callbacks": ("pika, callbacks alone", "pika"),
    "confluent": ("confluent-kafka", "confluent-kafka"),
    "confluent_batches": ("confluent-kafka, one by one", "confluent-kafka"),
    "celery": ("Celery", "celery"),
}
"""What each module's contender is called, and in which distribution it comes."""
WITHOUT_MANY = frozenset({"celery"})
"""Who publishes one by one only."""
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Contender:
    """One who carries messages, in a place of its own that serves all its rounds."""

    task: Task
    sizes: Sizes
    must_hold: Callable[[int], None]
    """Raises unless so many messages lie there that nobody has handled and acknowledged."""
    share: float = 1.0
    """Of the messages: so many that each works for about as long as the others."""

    @property
    def label(self) -> str:
        return PEERS[self.task.contender][0]

    def told(self, *, headers: dict[str, str], exchange: str = "") -> Contender:
        """The same, whose messages have these headers and go to that exchange."""
        return dataclasses.replace(
            self, task=replace(self.task, headers=headers, exchange=exchange)
        )

    def throughput(self) -> Figures:
        """Publish, many in flight and one by one, then consume all of it."""
        count, each = int(self.sizes.messages * self.share), self.sizes.one_by_one
        figures: dict[str, float] = {}
        total = 0
        if self.task.contender in WITHOUT_MANY:
            each = count
        else:
            sent = self._ask("publish", count)
            figures |= {"publish": count / sent["wall"], "publish cpu": cpu(sent, count)}
            total += count + self.task.warm
        sent = ask(replace(self.task, part="publish", count=each, in_flight=1))
        figures["await each"] = each / sent["wall"]
        total += each + self.task.warm
        self.must_hold(total)
        done = self._ask("consume", total)
        self.must_hold(0)
        figures |= {"consume": total / done["wall"], "consume cpu": cpu(done, total)}
        return {**figures, "memory, MiB": done["memory"]}

    def published(self) -> Figures:
        """Publish alone; whoever asks empties the place."""
        count = int(self.sizes.messages * self.share)
        sent = self._ask("publish", count)
        self.must_hold(count + self.task.warm)
        return {"publish": count / sent["wall"], "publish cpu": cpu(sent, count)}

    def latency(self) -> Figures:
        """Milliseconds from publish in one process to the handler in another."""
        count = self.sizes.latencies
        with Child(replace(self.task, part="listen", count=count)) as listener:
            listener.ready()
            ask(replace(self.task, part="send", count=count, in_flight=1))
            cuts = statistics.quantiles(listener.result()["late"], n=100)
        self.must_hold(0)
        return {"p50, ms": cuts[49], "p99, ms": cuts[98]}

    def waiting(self) -> Figures:
        """A worker's memory and the rates while all the others wait; as many wait afterwards."""
        count = self.sizes.few // 2
        done = self._ask("consume", count)
        sent = self._ask("publish", count - self.task.warm)
        return {
            "memory, MiB": done["memory"],
            "consume": count / done["wall"],
            "publish": (count - self.task.warm) / sent["wall"],
        }

    def fill(self, count: int) -> None:
        self._ask("publish", count - self.task.warm)
        self.must_hold(count)

    def handled(self) -> Figures:
        """Messages a second that take their handler a while."""
        count = self.sizes.slow
        self._ask("publish", count)
        done = self._ask("consume", count)
        self.must_hold(0)
        return {"consume": count / done["wall"]}

    def _ask(self, part: str, count: int) -> Mapping[str, float]:
        return ask(replace(self.task, part=part, count=count))


def cpu(result: Mapping[str, float], count: int) -> float:
    """Seconds of the process per 10,000 messages."""
    return result["cpu"] * 10_000 / count


def in_turn(
    report: Report,
    contenders: Sequence[Contender],
    measure: Callable[[Contender], Figures],
    *,
    rounds: int,
) -> None:
    """Add the figures of all rounds to the report."""
    report.figures |= alternate_all(
        {one.label: partial(measure, one) for one in contenders},
        rounds=rounds,
        warmups=contenders[0].sizes.warmups,
    )


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

    def state_all(self) -> None:
        """Every figure of every peer, with a goal or without."""
        for name in self._report.figures:
            peer, _, what = name.partition(": ")
            if peer != "callcast":
                self.state(what, peer)

    def _add(self, what: str, peer: str, goal: tuple[str, float]) -> None:
        ratio = self.state(what, peer)
        if ratio is not None:
            name = f"{self._what}, {what}: {peer}"
            self._report.goals.append(Goal(name, ratio.median, *goal, "x"))


def waiting(report: Report, few: Contender, many: Contender) -> Report:
    """A worker's memory and the rates, with few and with many messages waiting."""
    sizes = few.sizes
    few.fill(sizes.few)
    many.fill(sizes.many)
    names = [f"{count:,} waiting" for count in (sizes.few, sizes.many)]
    measured = dict(zip(names, (few.waiting, many.waiting), strict=True))
    report.figures |= alternate_all(measured, rounds=sizes.waiting_rounds, warmups=sizes.warmups)
    for what, relation, limit in (
        ("memory, MiB", "<=", 1.1),
        ("consume", ">=", 0.8),
        ("publish", ">=", 0.8),
    ):
        ratio = report.ratio(*(f"{name}: {what}" for name in reversed(names)))
        name = f"{report.bench.partition('_')[0]}, {what.partition(',')[0]}, {names[1]}: {names[0]}"
        report.goals.append(Goal(name, ratio.median, relation, limit, "x"))
    return report


def opened(
    bench: str, contenders: Sequence[Contender], *, driver: str, more: Mapping[str, object]
) -> Report:
    """An empty report: who takes part, and how much they do."""
    used = [PEERS[one.task.contender][1] for one in contenders]
    settings = {
        **contenders[0].sizes.plain(),
        "latencies_before_the_watch": EARLY,
        "environment": PATIENT,
        "shares_of_messages": {one.label: one.share for one in contenders},
        **more,
    }
    return Report(bench, "", versions(*dict.fromkeys([*used, driver, "msgspec"])), settings)
