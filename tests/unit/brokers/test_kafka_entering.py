"""Joining a group on Kafka and being cut short: what waits, what is given back, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError
from kafka_fake import FakeAdmin, FakeConsumer, answered, install
from kafka_fake_cluster import Came, Cluster

from callcast.brokers.kafka import KafkaBroker, Options, codes, commits, link
from callcast.brokers.kafka import broker as module
from callcast.brokers.kafka.control import Control
from callcast.brokers.kafka.letters import Letters
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.names import CONTROL, names_of
from callcast.brokers.kafka.topology import Topology
from callcast.core.errors import NotPermitted, Unavailable
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead
from callcast.ports.broker import Consumer, Delivery, Part, Source, Unsettled
from callcast.runtime.clock import AsyncioClock

BILLING = Source("orders", "billing")
NAMES = names_of(BILLING)
OPTIONS = Options(servers="one:9092", partitions=1)
PATIENCE = 3.0


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


async def publish(broker: KafkaBroker, *names: str) -> None:
    await broker.publish([Message(name, "tests", "orders", "orders", b"1", "a") for name in names])


def ids(deliveries: object) -> list[str]:
    return [one.message.id for one in deliveries]  # type: ignore[attr-defined]


# Joining


async def test_consumers_of_one_source_share_one_member(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    one, two = await broker.consume(BILLING), await broker.consume(BILLING)
    assert len(cluster.members[NAMES.group]) == 1
    await one.close()
    assert len(cluster.members[NAMES.group]) == 1
    await two.close()
    assert cluster.members[NAMES.group] == []


async def test_a_group_that_does_not_take_us_in_says_why(
    broker: KafkaBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOIN_WAIT", 0.05)
    cluster.refuse("subscribe", *[KafkaError.GROUP_AUTHORIZATION_FAILED] * 9)
    with pytest.raises(Unavailable, match=r"did not take this process in within .*refused"):
        await broker.consume(BILLING)
    cluster.refusals.clear()
    await broker.consume(BILLING)


async def test_a_group_that_is_busy_is_waited_for_and_then_fetching_waits_on(
    broker: KafkaBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOIN_WAIT", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(FakeConsumer, "_rebalance", lambda _: None)
        consumer = await broker.consume(BILLING)
    await publish(broker, "1")
    assert ids(await consumer.fetch(1, PATIENCE)) == ["1"]


async def test_partitions_that_others_still_hold_are_waited_for_a_while(
    broker: KafkaBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARE_WAIT", 0.1)
    states = [ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.STABLE]
    asked: list[object] = []

    def describe(_: FakeAdmin, groups: list[str], **__: object) -> dict[str, object]:
        asked.append(groups)
        said = type("Group", (), {"state": states[len(asked) > 1], "members": ()})()
        return {group: answered(said) for group in groups}

    monkeypatch.setattr(FakeAdmin, "describe_consumer_groups", describe)
    await broker.consume(BILLING)
    assert len(asked) > 2


async def test_a_group_that_cannot_be_looked_at_is_told(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("describe_consumer_groups", KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(NotPermitted, match="look at group"):
        await broker.consume(BILLING)


async def test_retiring_closes_the_consumers_of_this_process(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await broker.consume(BILLING)
    letters = await broker.consume(BILLING, part=Part.DEAD)
    await broker.retire(BILLING)
    assert await consumer.fetch(1, PATIENCE) == ()
    await letters.close()
    assert {topic for topic, _ in cluster.ends} == {"orders", CONTROL}


async def test_a_fetch_that_does_not_wait_reads_what_is_there(broker: KafkaBroker) -> None:
    consumer = await broker.consume(BILLING, lease=0.3)
    await publish(broker, "1", "2")
    found = await consumer.fetch(2, 0.0)
    assert ids(found) == ["1", "2"]
    for _ in range(3):
        await asyncio.sleep(0.15)
        consumer.renew(found)
    await consumer.settle([(one, DONE) for one in found])
    await consumer.close()
    await consumer.close()


async def test_closing_twice_at_once_ends_everything_once(
    cluster: Cluster,
) -> None:
    broker = KafkaBroker(OPTIONS, clock=AsyncioClock())
    await broker.ensure(["orders"], [BILLING])
    await broker.consume(BILLING)
    await asyncio.gather(broker.close(), broker.close())
    assert cluster.clients == 0


# Cut short


async def test_a_fetch_that_is_cut_short_hands_over_nothing_and_counts_nothing(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await broker.consume(BILLING)
    cluster.refuse("commit", *[KafkaError.REBALANCE_IN_PROGRESS] * 500)
    await publish(broker, "1")
    fetching = asyncio.ensure_future(consumer.fetch(1, PATIENCE))
    await asyncio.sleep(0.2)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    cluster.refusals.clear()
    [again] = await consumer.fetch(1, PATIENCE)
    assert (again.message.id, again.crashes) == ("1", 0)


async def test_a_fetch_whose_commit_is_refused_for_long_hands_over_nothing(
    broker: KafkaBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "PATIENCE", 0.05)
    consumer = await broker.consume(BILLING)
    cluster.refuse("commit", *[KafkaError.REBALANCE_IN_PROGRESS] * 500)
    await publish(broker, "1")
    with pytest.raises(Unavailable, match="no commit was accepted"):
        await consumer.fetch(1, PATIENCE)
    cluster.refusals.clear()
    assert ids(await until_fetched(consumer)) == ["1"]


async def until_fetched(consumer: Consumer) -> object:
    """What is there, once the commits go again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await consumer.fetch(1, 1.0)
            except Unavailable:
                continue


async def test_a_settle_that_is_cut_short_leaves_its_delivery_ours(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await broker.consume(BILLING)
    await publish(broker, "1")
    [first] = await consumer.fetch(1, PATIENCE)
    cluster.refusals["full"].extend([KafkaError(codes.QUEUE_FULL)] * 100)
    settling = asyncio.ensure_future(consumer.settle([(first, Dead("broken"))]))
    await asyncio.sleep(0.02)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    cluster.refusals.clear()
    await consumer.settle([(first, DONE)])
    assert (await broker.lag(BILLING)).leased == 0


async def test_closing_wakes_a_fetch_that_waits_for_the_server(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await broker.consume(BILLING)
    cluster.refuse("list_offsets", *[KafkaError.LEADER_NOT_AVAILABLE] * 40)
    waiting = asyncio.ensure_future(consumer.fetch(1, 0.0))
    await asyncio.sleep(0.05)
    await consumer.close()
    cluster.refuse("list_offsets", *[codes.TIMED_OUT] * 400)
    assert await waiting == ()
    cluster.refusals.clear()


async def test_a_look_at_a_server_that_is_away_is_told(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await broker.consume(BILLING)
    cluster.refuse("list_offsets", codes.TIMED_OUT)
    with pytest.raises(Unavailable, match="could not look at orders"):
        await consumer.fetch(1, 0.0)
    cluster.refuse("poll", *[codes.TRANSPORT] * 3)
    await publish(broker, "1")
    assert ids(await until_fetched(consumer)) == ["1"]


# The cluster is not ready


@pytest.fixture
async def opened(cluster: Cluster) -> AsyncGenerator[Link]:
    found = Link(OPTIONS, AsyncioClock())
    yield found
    await found.close()
    with pytest.raises(Unavailable, match="the broker is closed"):
        await found.partitions(["orders"], anew=True)


@pytest.mark.parametrize("question", ["positions", "delete_consumer_groups"])
async def test_a_group_whose_coordinator_moves_is_asked_about_again(
    opened: Link, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr(link, "AGAIN_GROUP", 0.001)
    control = Control(opened)
    await Topology(opened, control).ensure(["orders"], [BILLING])
    cluster.refuse(question, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert await opened.committed(NAMES.group, [("orders", 0)]) == {("orders", 0): (0, "")}
    await Topology(opened, control).retire(BILLING)
    cluster.refuse("positions", KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(NotPermitted, match="look at group"):
        await opened.committed(NAMES.group, [("orders", 0)])


async def test_a_topic_that_was_made_and_is_not_there_is_told(
    opened: Link, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MAKE", 0.05)
    monkeypatch.setattr(cluster, "make", lambda *_: None)
    with pytest.raises(Unavailable, match="was created, and is not there"):
        await Control(opened).prepare()


async def test_the_letters_of_a_topic_that_was_made_anew_are_found(
    opened: Link, cluster: Cluster
) -> None:
    """Another process has retired the group, and ensured it again."""
    topology = Topology(opened, Control(opened))
    await topology.ensure(["orders"], [BILLING])
    letters = Letters(BILLING, opened)

    def fill(came: Came) -> None:
        came.stored_key, came.stored_value = b"1", b"1"

    for _ in range(2):
        cluster.append((NAMES.dead, 0), fill)
    await letters.refresh()
    await topology.retire(BILLING)
    await letters.refresh()
    assert letters.count == 0
    await letters.refresh()
    await topology.ensure([], [BILLING])
    cluster.append((NAMES.dead, 0), fill)
    await letters.refresh()
    assert letters.count == 1
    cluster.make(NAMES.dead, 1)
    await letters.refresh()
    assert letters.count == 0


async def test_more_letters_than_a_page_are_read(opened: Link, cluster: Cluster) -> None:
    await Topology(opened, Control(opened)).ensure(["orders"], [BILLING])
    letters = Letters(BILLING, opened)
    for number in range(1_003):

        def fill(came: Came, number: int = number) -> None:
            came.stored_key, came.stored_value = str(number).encode(), b"1"

        cluster.append((NAMES.dead, 0), fill)
    await letters.refresh()
    assert letters.count == 1_003
    page = await letters.page("", 700)
    assert len(page) == 700
    assert len(await letters.page(page[-1].position, 700)) == 303


async def buried(opened: Link, cluster: Cluster, *names: str) -> Letters:
    """The dead letters of a group, as far as they were read."""
    await Topology(opened, Control(opened)).ensure(["orders"], [BILLING])
    for name in names:

        def fill(came: Came, name: str = name) -> None:
            came.stored_key, came.stored_value = name.encode(), b"1"

        cluster.append((NAMES.dead, 0), fill)
    letters = Letters(BILLING, opened)
    await letters.refresh()
    return letters


async def test_a_letter_that_was_compacted_away_is_not_handed_over(
    opened: Link, cluster: Cluster
) -> None:
    letters = await buried(opened, cluster, "1", "2")
    del cluster.logs[NAMES.dead, 0][1]
    taken = letters.take(object(), 10, lease=60.0, now=1.0)
    assert ids(await letters.deliveries(taken)) == [f"{NAMES.dead}/0/0"]
    assert await letters.deliveries(taken[1:]) == []
    assert await letters.deliveries([]) == []


async def test_a_consumer_that_ends_gives_its_own_letters_back_and_no_others(
    opened: Link, cluster: Cluster
) -> None:
    letters = await buried(opened, cluster, "1", "2")
    mine, yours = object(), object()
    letters.take(mine, 1, lease=60.0, now=1.0)
    letters.take(yours, 1, lease=60.0, now=1.0)
    letters.give_back_all(mine)
    assert [one.key for one in letters.take(yours, 9, lease=60.0, now=1.0)] == [b"1"]


async def test_a_letter_that_is_gone_already_is_forgotten_once(
    opened: Link, cluster: Cluster
) -> None:
    letters = await buried(opened, cluster, "1")
    [one] = letters.take(object(), 1, lease=60.0, now=1.0)
    for _ in range(2):
        letters.gone(one)
        assert letters.count == 0


async def test_a_start_that_another_process_has_just_set_is_as_good(
    opened: Link, cluster: Cluster
) -> None:
    topology = Topology(opened, Control(opened))
    cluster.refuse("alter_consumer_group_offsets", KafkaError.UNKNOWN_MEMBER_ID)
    with pytest.raises(Unavailable, match="set the start of group"):
        await topology.ensure(["orders"], [BILLING])
    committed = cluster.committed[NAMES.group]
    cluster.refuse("alter_consumer_group_offsets", KafkaError.UNKNOWN_MEMBER_ID)
    asked = iter([{}, {("orders", 0): (0, "")}])
    cluster.committed[NAMES.group] = Other(asked)
    await topology.ensure(["orders"], [BILLING])
    cluster.committed[NAMES.group] = committed


class Other(dict[object, object]):
    """The positions of a group, which somebody else sets between two questions."""

    def __init__(self, answers: object) -> None:
        super().__init__()
        self._answers = answers

    def get(self, place: object, default: object = None) -> object:
        return next(self._answers).get(place, default)  # type: ignore[call-overload]


async def test_verdicts_on_what_is_no_letter_of_ours_are_lost(broker: KafkaBroker) -> None:
    letters = await broker.consume(BILLING, part=Part.DEAD)
    strange = Delivery(Message("1", "tests", "orders", "orders", b"1"))
    letters.renew([strange])
    with pytest.raises(Unsettled) as caught:
        await letters.settle([(strange, DONE)])
    assert caught.value.lost == (strange,)
