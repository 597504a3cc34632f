"""What ``bench/brokers.py`` measures on RabbitMQ."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import brokers_contender as contenders
from brokers_contender import Contender, Figures, Goals, in_turn
from brokers_processes import ask
from brokers_server import (
    CLASSIC,
    bind,
    declare,
    headers_of_one,
    must_hold,
    purge,
    quorum_arguments,
    unique,
    work_queue,
)
from brokers_sizes import Sizes
from brokers_work import Task
from harness import Report, alternate_all
from msgspec.structs import replace

from callcast.brokers.rabbitmq import RabbitBroker

OLD = "rabbitmq-3.10"
SHARES = {"callcast": 1.0, "faststream": 0.4, "pika": 1.0, "pika_callbacks": 1.0, "celery": 0.1}
LEFT = {"celery": 50}
"""A worker that was told to end leaves a dozen of its last messages unacknowledged at times."""
GOALS = {OLD: (5.0, 6.0)}
"""Publish and consume on quorum queues, as shares of FastStream's rates; else as the next says."""
USUAL_GOALS = (3.5, 6.0)


def contender(name: str, url: str, sizes: Sizes, *, is_classic: bool = False) -> Contender:
    """With its queue declared: all have the same arguments."""
    place = unique(name)
    arguments = CLASSIC if is_classic else quorum_arguments(place)
    task = Task(name, "", url, place, arguments=arguments, is_foreign=is_classic)
    is_ours = name == "callcast" and not is_classic
    if not is_ours:
        declare(url, place, arguments)
    if name == "callcast":
        ask(replace(task, part="subscribe"))
    queue = work_queue(place) if is_ours else place
    held = partial(must_hold, url, queue, may_be_left=LEFT.get(name, 0))
    return Contender(task, sizes, held, SHARES[name])


def throughput(broker: str, url: str, sizes: Sizes) -> Report:
    names = sizes.those("faststream", "pika", "pika_callbacks", "celery")
    them = [contender(name, url, sizes) for name in names]
    report = opened(named(broker), them)
    in_turn(report, them, Contender.throughput, rounds=sizes.rounds)
    goals = Goals(report, f"{broker}, quorum")
    publish, consume = GOALS.get(broker, USUAL_GOALS)
    goals.rate("publish", "FastStream", publish)
    goals.rate("consume", "FastStream", consume)
    if broker != OLD:
        goals.rate("publish", "pika", 0.8)
        goals.rate("consume", "pika", 1.0)
        goals.cost("publish cpu", "FastStream", 1 / 4)
        goals.cost("consume cpu", "FastStream", 1 / 6)
        goals.cost("memory, MiB", "FastStream", 1.0)
    goals.state_all()
    return report


def classic(broker: str, url: str, sizes: Sizes) -> Report:
    """Queues that others made, which callcast is bound to: its own are quorum queues."""
    names = sizes.those("faststream", "pika")
    them = [contender(name, url, sizes, is_classic=True) for name in names]
    report = opened(named(broker, "classic"), them)
    in_turn(report, them, Contender.throughput, rounds=sizes.rounds)
    goals = Goals(report, f"{broker}, classic")
    goals.rate("publish", "FastStream", 2.0)
    goals.rate("consume", "FastStream", 4.0)
    goals.state_all()
    return report


def headers(broker: str, url: str, sizes: Sizes) -> Report:
    """What the server takes for what callcast has it do: plain pika with the same, bit by bit."""
    ours, plain, more, alike = (
        contender(name, url, sizes) for name in ("callcast", *["pika_callbacks"] * 3)
    )
    ask(replace(ours.task, part="publish", count=1, warm=0))
    added = headers_of_one(url, work_queue(ours.task.place))
    exchange = unique("exchange")
    bind(url, alike.task.place, exchange)
    them = {
        "callcast": ours,
        "pika": plain,
        "pika, callcast's headers": more.told(headers=added),
        "pika, its headers and exchange, mandatory": alike.told(headers=added, exchange=exchange),
    }
    report = opened(named(broker, "headers"), list(them.values()))

    def publish(one: Contender) -> Figures:
        figures = one.published()
        purge(url, work_queue(one.task.place) if one is ours else one.task.place)
        return figures

    report.figures |= alternate_all(
        {name: partial(publish, one) for name, one in them.items()},
        rounds=sizes.rounds,
        warmups=sizes.warmups,
    )
    Goals(report, broker).state_all()
    return report


def latency(broker: str, url: str, sizes: Sizes) -> Report:
    them = [contender(name, url, sizes) for name in sizes.those("faststream", "pika")]
    report = opened(named(broker, "latency"), them)
    in_turn(report, them, Contender.latency, rounds=sizes.latency_rounds)
    goals = Goals(report, f"{broker}, 200 a second")
    goals.cost("p50, ms", "FastStream", 0.8)
    goals.cost("p99, ms", "FastStream", 1.0)
    goals.state_all()
    return report


def waiting(broker: str, url: str, sizes: Sizes) -> Report:
    few, many = (contender("callcast", url, sizes) for _ in range(2))
    return contenders.waiting(opened(named(broker, "waiting"), [few]), few, many)


def named(broker: str, measure: str = "") -> str:
    """As its file is called."""
    return f"{broker}_{measure}".rstrip("_").replace("-", "_").replace(".", "_")


def opened(bench: str, them: list[Contender]) -> Report:
    prefetch = inspect.signature(RabbitBroker.consume).parameters["prefetch"].default
    more: Mapping[str, object] = {"prefetch_of_callcast": prefetch}
    return contenders.opened(bench, them, driver="pika", more=more)


Measure = Callable[[str, str, Sizes], Report]
MEASURES: Mapping[str, Measure] = {
    "throughput": throughput,
    "classic": classic,
    "headers": headers,
    "latency": latency,
    "waiting": waiting,
}
