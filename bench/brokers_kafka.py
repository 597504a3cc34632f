"""What ``bench/brokers.py`` measures on Kafka: topics of one partition, ``acks=all``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import brokers_contender as contenders
from brokers_callcast import GROUP
from brokers_contender import Contender, Goals, in_turn
from brokers_processes import ask
from brokers_server import LOOK, PATIENCE, unique
from brokers_sizes import Sizes
from brokers_work import Task
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Goal, Report, alternate_all
from msgspec.structs import replace

from callcast.brokers.kafka.names import names_of
from callcast.ports.broker import Source

SHARES = {"callcast": 5.0, "faststream_kafka": 1.0, "confluent": 15.0, "confluent_batches": 15.0}
"""The drivers fetch 100,000 ahead, before the watch starts at the first: most must come after."""
KEYS = 8
HANDLER_SECONDS = 0.005
SCHEME = "kafka://"
ONE_PARTITION = "?partitions=1"
TIMEOUT = 30.0
"""Seconds for an answer of the server."""


def contender(
    name: str, url: str, sizes: Sizes, *, keys: int = 0, handler_seconds: float = 0.0
) -> Contender:
    """With its topic made."""
    place, servers = unique(name), url.removeprefix(SCHEME)
    task = Task(name, "", servers, place, keys=keys, handler_seconds=handler_seconds)
    group = place
    if name == "callcast":
        task = replace(task, url=url + ONE_PARTITION)
        group = names_of(Source(place, GROUP)).group
        ask(replace(task, part="subscribe"))
    else:
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic(place, 1)])[place].result(TIMEOUT)
    if handler_seconds:
        task = replace(task, warm=0)
    return Contender(task, sizes, partial(must_hold, servers, (place, group)), SHARES[name])


def must_hold(servers: str, place: tuple[str, str], count: int) -> None:
    """The group has committed all of the topic but so many messages."""
    topic, group = place
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    end = time.monotonic() + PATIENCE
    try:
        while (found := _left(consumer, topic)) != count:
            if time.monotonic() > end:
                raise RuntimeError(f"{found} messages in {topic}, where {count} should be")
            time.sleep(LOOK)
    finally:
        consumer.close()


def _left(consumer: Consumer, topic: str) -> int:
    place = TopicPartition(topic, 0)
    first, after = consumer.get_watermark_offsets(place, TIMEOUT)
    (committed,) = consumer.committed([place], TIMEOUT)
    return after - max(first, committed.offset)


def throughput(broker: str, url: str, sizes: Sizes) -> Report:
    names = sizes.those("faststream_kafka", "confluent", "confluent_batches")
    them = [contender(name, url, sizes) for name in names]
    report = opened(broker, them)
    in_turn(report, them, Contender.throughput, rounds=sizes.rounds)
    goals = Goals(report, broker)
    goals.rate("publish", "FastStream", 3.5)
    goals.rate("consume", "FastStream", 12.0)
    goals.rate("publish", "confluent-kafka", 0.5)
    goals.rate("consume", "confluent-kafka", 0.4)
    goals.state_all()
    return report


def latency(broker: str, url: str, sizes: Sizes) -> Report:
    names = sizes.those("faststream_kafka", "confluent")
    them = [contender(name, url, sizes) for name in names]
    report = opened(f"{broker}_latency", them)
    in_turn(report, them, Contender.latency, rounds=sizes.latency_rounds)
    Goals(report, broker).state_all()
    return report


def lanes(broker: str, url: str, sizes: Sizes) -> Report:
    """Eight keys side by side on one partition, against all of it one at a time."""
    slow = partial(contender, url=url, sizes=sizes, handler_seconds=HANDLER_SECONDS)
    them = {
        f"callcast, {KEYS} keys": slow("callcast", keys=KEYS),
        "callcast, 1 key": slow("callcast", keys=1),
        "FastStream": slow("faststream_kafka", keys=KEYS),
    }
    report = opened(f"{broker}_lanes", list(them.values()))
    report.settings = {**report.settings, "keys": KEYS, "handler_seconds": HANDLER_SECONDS}
    report.figures |= alternate_all(
        {name: one.handled for name, one in them.items()},
        rounds=sizes.latency_rounds,
        warmups=sizes.warmups,
    )
    ours, *others = (f"{name}: consume" for name in them)
    for other in others:
        ratio = report.ratio(ours, other)
        name = f"{broker}, {KEYS} keys side by side on one partition: {other.partition(':')[0]}"
        report.goals.append(Goal(name, ratio.median, ">=", 7.0, "x"))
    return report


def waiting(broker: str, url: str, sizes: Sizes) -> Report:
    few, many = (contender("callcast", url, sizes) for _ in range(2))
    return contenders.waiting(opened(f"{broker}_waiting", [few]), few, many)


def opened(bench: str, them: list[Contender]) -> Report:
    return contenders.opened(bench, them, driver="confluent-kafka", more={"partitions": 1})


Measure = Callable[[str, str, Sizes], Report]
MEASURES: Mapping[str, Measure] = {
    "throughput": throughput,
    "latency": latency,
    "lanes": lanes,
    "waiting": waiting,
}
