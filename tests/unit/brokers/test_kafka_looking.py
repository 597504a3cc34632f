"""Looking at Kafka without consuming, and deleting what nobody needs: on a cluster in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from confluent_kafka import KafkaError
from kafka_fake import install
from kafka_fake_cluster import Came, Cluster

from callcast.brokers.kafka import KafkaBroker, Options, codes
from callcast.brokers.kafka.control import Control
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.names import names_of
from callcast.brokers.kafka.trimming import EVERY, Trimming
from callcast.core.errors import Misuse, NotPermitted, Unavailable
from callcast.core.message import Message
from callcast.core.outcome import DONE, Later
from callcast.ports.broker import Glimpse, Part, Source
from callcast.runtime.clock import AsyncioClock
from callcast.testing import ManualClock

BILLING = Source("orders", "billing")
ORDERED = Source("orders", "ordered", ordered=True)
NAMES = names_of(BILLING)
RETAIN = 60.0
OPTIONS = Options(servers="one:9092", partitions=2, retain=RETAIN)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch)


@pytest.fixture
async def broker(cluster: Cluster) -> AsyncGenerator[KafkaBroker]:
    broker = KafkaBroker(OPTIONS, clock=AsyncioClock())
    await broker.ensure(["orders"], [BILLING])
    yield broker
    await broker.close()
    assert cluster.clients == 0


async def publish(broker: KafkaBroker, cluster: Cluster, *names: str) -> None:
    """Publish one after the other, a second apart, taking turns over the partitions."""
    for name in names:
        cluster.wall += 1.0
        await broker.publish([Message(name, "tests", "orders", "orders", b"1")])


def ids(glimpses: object) -> list[str]:
    return [one.message.id for one in glimpses]  # type: ignore[attr-defined]


# Replays


async def test_kept_messages_are_read_in_the_order_of_their_publishing(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await publish(broker, cluster, *"12345")
    pages: list[Glimpse] = []
    after = ""
    while page := await broker.read("orders", after=after, limit=2):
        pages += page
        after = page[-1].position
    assert ids(pages) == ["1", "2", "3", "4", "5"]
    assert after == "0:2,1:1"
    assert pages[0].at == cluster.wall - 4.0
    assert await broker.read("nothing.of.the.kind") == []


async def test_a_window_of_time_and_of_positions_is_read(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await publish(broker, cluster, *"12345")
    first = cluster.wall - 4.0
    window = await broker.read("orders", since=first + 1.0, until=first + 3.0)
    assert ids(window) == ["2", "3"]
    assert await broker.read("orders", since=cluster.wall + 1.0) == []
    assert ids(await broker.read("orders", last="0:1, 1:0")) == ["1", "2", "3"]
    assert ids(await broker.read("orders", after="1:0")) == ["4"]
    assert ids(await broker.read("orders", after="0:-1")) == ["1", "3", "5"]


@pytest.mark.parametrize("position", ["7", "a:1", "0:x", "0:1;1:2", "0:"])
async def test_a_position_that_is_none_is_misuse(broker: KafkaBroker, position: str) -> None:
    with pytest.raises(Misuse, match="on Kafka it is partition:offset"):
        await broker.read("orders", after=position)


# How far a group is


async def test_the_age_of_the_oldest_that_waits_is_told(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    assert (await broker.lag(BILLING)).oldest == 0.0
    clock = AsyncioClock()
    cluster.wall = clock.wall() - 100.0
    await publish(broker, cluster, "1")
    assert (await broker.lag(BILLING)).oldest == pytest.approx(99.0, abs=5.0)


async def test_markers_and_holes_are_no_lag(broker: KafkaBroker, cluster: Cluster) -> None:
    cluster.skip(("orders", 0), 5)
    await publish(broker, cluster, "1")
    assert (await broker.lag(BILLING)).ready == 1
    cluster.skip(("orders", 1), 2)
    assert (await broker.lag(BILLING)).ready == 1


async def test_what_other_processes_have_out_counts_as_far_as_it_is_noted(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await publish(broker, cluster, *"123456")
    cluster.committed[NAMES.group]["orders", 0] = (0, "c1 0 1oc1,1s")
    lag = await broker.lag(BILLING)
    assert (lag.ready, lag.leased) == (4, 1)
    assert ids(await broker.browse(BILLING)) == ["1", "2", "4", "5", "6"]


async def test_a_partition_without_a_position_counts_from_its_beginning(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await publish(broker, cluster, "1", "2")
    cluster.committed[NAMES.group].clear()
    assert (await broker.lag(BILLING)).ready == 2


async def test_browsing_goes_on_behind_a_position(broker: KafkaBroker, cluster: Cluster) -> None:
    await publish(broker, cluster, *"123")
    [first] = await broker.browse(BILLING, limit=1)
    assert ids(await broker.browse(BILLING, after=first.position)) == ["2", "3"]


async def test_what_this_process_holds_is_neither_ready_nor_delayed(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await broker.ensure([], [ORDERED])
    await publish(broker, cluster, *"123")
    consumer = await broker.consume(ORDERED)
    one, two, three = sorted(await consumer.fetch(10, 5.0), key=lambda each: each.message.id)
    await consumer.settle([(one, DONE), (two, Later(60.0))])
    assert ids(await broker.browse(ORDERED)) == []
    [delayed] = await broker.browse(ORDERED, part=Part.DELAYED)
    assert (delayed.message.id, delayed.round) == ("2", 1)
    assert delayed.due == pytest.approx(AsyncioClock().wall() + 60.0, abs=5.0)
    lag = await broker.lag(ORDERED)
    assert (lag.ready, lag.leased, lag.delayed) == (0, 1, 1)
    await consumer.settle([(three, DONE)])


async def test_what_is_held_elsewhere_is_delayed(broker: KafkaBroker, cluster: Cluster) -> None:
    await publish(broker, cluster, "1", "2")
    due = int((AsyncioClock().wall() + 60.0) * 10)
    cluster.committed[NAMES.group]["orders", 0] = (0, f"c1 0 1r2d{due}")
    [delayed] = await broker.browse(BILLING, part=Part.DELAYED)
    assert (delayed.message.id, delayed.round, delayed.due) == ("1", 2, due / 10)
    assert ids(await broker.browse(BILLING)) == ["2"]


async def test_a_read_that_fails_is_told(broker: KafkaBroker, cluster: Cluster) -> None:
    await publish(broker, cluster, "1")
    cluster.refuse("poll", codes.TRANSPORT)
    with pytest.raises(Unavailable, match="could not read"):
        await broker.read("orders")
    assert ids(await broker.read("orders")) == ["1"]


async def test_a_paused_group_and_its_dead_letters_are_within_reach(broker: KafkaBroker) -> None:
    await broker.pause(BILLING)
    assert (await broker.lag(BILLING)).paused
    assert await broker.browse(BILLING, part=Part.DEAD) == []


# Deleting what all groups have passed


class Kept:
    """A link to a cluster with one group, and old and young records."""

    def __init__(self, cluster: Cluster, link: Link, clock: ManualClock) -> None:
        self.cluster = cluster
        self.link = link
        self.clock = clock
        self.control = Control(link)
        self.trimming = Trimming(BILLING, link, self.control)

    def store(self, count: int, *, age: float, topic: str = "orders") -> None:
        for _ in range(count):
            time = int((self.clock.wall() - age) * 1_000)
            self.cluster.append((topic, 0), fill, time)

    def kept(self, topic: str = "orders") -> list[int]:
        return list(self.cluster.logs[topic, 0])


def fill(came: Came) -> None:
    came.stored_value = b"1"


@pytest.fixture
async def kept(broker: KafkaBroker, cluster: Cluster) -> AsyncGenerator[Kept]:
    clock = ManualClock()
    found = Kept(cluster, Link(OPTIONS, clock), clock)
    await found.control.prepare()
    yield found
    await found.link.close()


async def test_what_all_groups_have_passed_goes_once_it_is_old(kept: Kept) -> None:
    kept.store(4, age=RETAIN + 1)
    kept.store(2, age=RETAIN - 1)
    kept.cluster.committed[NAMES.group]["orders", 0] = (3, "")
    await kept.trimming.trim()
    assert kept.kept() == [3, 4, 5]
    kept.cluster.committed[NAMES.group]["orders", 0] = (6, "")
    await kept.trimming.trim()
    assert kept.kept() == [4, 5]
    await kept.clock.advance(RETAIN)
    await kept.trimming.trim()
    await kept.trimming.trim()
    assert kept.kept() == []


async def test_a_group_that_has_just_been_made_loses_nothing(
    kept: Kept, broker: KafkaBroker
) -> None:
    kept.store(4, age=RETAIN + 1)
    kept.cluster.committed[NAMES.group]["orders", 0] = (4, "")
    await broker.ensure([], [Source("orders", "other")])
    kept.cluster.committed["orders.other"]["orders", 0] = (1, "")
    await kept.trimming.trim()
    assert kept.kept() == [1, 2, 3]


async def test_a_group_whose_position_is_not_known_keeps_everything(kept: Kept) -> None:
    kept.store(4, age=RETAIN + 1)
    kept.cluster.committed[NAMES.group].clear()
    await kept.trimming.trim()
    assert kept.kept() == [0, 1, 2, 3]


async def test_what_is_of_one_group_alone_goes_when_that_has_passed_it(kept: Kept) -> None:
    kept.store(3, age=0.0, topic=NAMES.redrive)
    kept.cluster.committed[NAMES.side][NAMES.redrive, 0] = (2, "")
    await kept.trimming.trim()
    assert kept.kept(NAMES.redrive) == [2]


async def test_a_topic_that_others_made_is_left_alone(kept: Kept, broker: KafkaBroker) -> None:
    foreign = Source("crm", "billing")
    kept.cluster.make("crm", 1)
    await broker.ensure(["crm"], [foreign])
    assert "retention.ms" not in kept.cluster.configs.get("crm", {})
    kept.store(3, age=RETAIN + 1, topic="crm")
    kept.cluster.committed["crm.billing"]["crm", 0] = (3, "")
    await Trimming(foreign, kept.link, kept.control).trim()
    assert kept.kept("crm") == [0, 1, 2]


async def test_it_is_looked_at_now_and_then_and_a_refusal_waits_for_the_next_time(
    kept: Kept,
) -> None:
    kept.store(3, age=RETAIN + 1)
    kept.cluster.committed[NAMES.group]["orders", 0] = (3, "")
    await kept.trimming.look()
    assert kept.kept() == [0, 1, 2]
    await kept.clock.advance(EVERY)
    kept.cluster.refuse("list_offsets", codes.TIMED_OUT)
    await kept.trimming.look()
    assert kept.kept() == [0, 1, 2]
    await kept.clock.advance(EVERY)
    await kept.trimming.look()
    assert kept.kept() == []


async def test_a_refusal_to_delete_is_told(kept: Kept) -> None:
    kept.store(3, age=RETAIN + 1)
    kept.cluster.committed[NAMES.group]["orders", 0] = (3, "")
    kept.cluster.refuse("delete_records", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(NotPermitted, match="trim orders/0"):
        await kept.trimming.trim()
