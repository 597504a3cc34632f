"""The Kafka broker on a cluster in memory: what it makes, sends, finds, and says when that fails."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from confluent_kafka import KafkaError
from kafka_fake import install
from kafka_fake_cluster import Cluster

from callcast.brokers.kafka import KafkaBroker, Options, codes
from callcast.brokers.kafka.control import Control
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.names import CONTROL, names_of
from callcast.core.errors import Misuse, NotPermitted, NotSent, Unanswered, Unavailable, Unpublished
from callcast.core.message import Message
from callcast.ports.broker import Part, Source, Start
from callcast.runtime.clock import AsyncioClock

BILLING = Source("orders", "billing")
NAMES = names_of(BILLING)
OPTIONS = Options(servers="one:9092", partitions=2, retain=60.0)


def message(name: str, key: str | None = None) -> Message:
    """An order."""
    return Message(name, "tests", "orders", "orders", b'"x"', key)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch)


@pytest.fixture
async def broker(cluster: Cluster) -> AsyncGenerator[KafkaBroker]:
    broker = KafkaBroker(OPTIONS, clock=AsyncioClock())
    yield broker
    await broker.close()
    assert cluster.clients == 0


@pytest.fixture
async def ready(broker: KafkaBroker) -> KafkaBroker:
    """One with a group."""
    await broker.ensure(["orders"], [BILLING])
    return broker


# Making


async def test_what_is_ensured_is_there_and_found_again(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    differences = await broker.differences(["orders"], [BILLING])
    assert [one.name for one in differences] == ["orders", "orders/billing"]
    assert all(one.is_missing for one in differences)
    for _ in range(2):
        await broker.ensure(["orders"], [BILLING])
        assert await broker.differences(["orders"], [BILLING]) == []
    assert cluster.count("orders") == 2
    assert await broker.sources() == [BILLING]
    assert broker.traits.log_kept == 60.0


async def test_the_first_group_hears_what_was_there_and_the_second_what_comes(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await broker.ensure(["orders"], [])
    await broker.publish([message("1", "a"), message("2", "b")])
    late, early = Source("orders", "late"), Source("orders", "early", start=Start.EARLIEST)
    for source in (BILLING, late, early):
        await broker.ensure([], [source])
    ready = [(await broker.lag(source)).ready for source in (BILLING, late, early)]
    assert ready == [2, 0, 2]


async def test_all_that_is_otherwise_is_named_at_once(ready: KafkaBroker) -> None:
    other = Source("orders", "billing", ordered=True, lanes=4)
    with pytest.raises(Misuse) as caught:
        await ready.ensure([], [other])
    assert "ordered=False, wanted is True" in str(caught.value)
    assert "lanes=16, wanted is 4" in str(caught.value)
    assert len(await ready.differences([], [other])) == 2


@pytest.mark.parametrize(
    ("topics", "source"),
    [([NAMES.dead], None), ([CONTROL], None), ([], Source(NAMES.group, "side"))],
)
async def test_names_that_clash_are_refused(
    ready: KafkaBroker, topics: list[str], source: Source | None
) -> None:
    with pytest.raises(Misuse, match="another name"):
        await ready.ensure(topics, [] if source is None else [source])


async def test_a_clash_of_others_is_no_reason_to_refuse(
    ready: KafkaBroker, cluster: Cluster
) -> None:
    """Two processes made their groups at the same moment; a third one has nothing to do with it."""
    link = Link(OPTIONS, AsyncioClock())
    await Control(link).enrol(Source(NAMES.group, "side"))
    await link.close()
    await ready.ensure([], [Source("mail", "billing")])
    with pytest.raises(Misuse, match="another name"):
        await ready.ensure([CONTROL], [])


async def test_a_part_that_somebody_deleted_is_named(ready: KafkaBroker, cluster: Cluster) -> None:
    del cluster.ends[NAMES.dead, 0]
    [difference] = await ready.differences(["orders"], [BILLING])
    assert difference.name == "orders/billing"
    assert "its topic 'orders.billing.dead' is missing" in difference.detail


@pytest.mark.parametrize("code", [codes.TIMED_OUT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
async def test_a_server_that_has_no_place_for_groups_yet_is_asked_again(
    broker: KafkaBroker, cluster: Cluster, code: int
) -> None:
    cluster.refuse("positions", code)
    await broker.ensure(["orders"], [BILLING])
    assert await broker.differences(["orders"], [BILLING]) == []


@pytest.mark.parametrize(
    ("question", "code", "kind"),
    [
        ("describe_topics", codes.TIMED_OUT, Unavailable),
        ("create_topics", KafkaError.TOPIC_AUTHORIZATION_FAILED, NotPermitted),
        ("create_topics", KafkaError.INVALID_REPLICATION_FACTOR, Misuse),
        ("list_offsets", codes.TIMED_OUT, Unavailable),
        ("positions", codes.TRANSPORT, Unavailable),
        ("positions", KafkaError.GROUP_AUTHORIZATION_FAILED, NotPermitted),
        ("store", codes.TIMED_OUT, Unavailable),
        ("incremental_alter_configs", KafkaError.CLUSTER_AUTHORIZATION_FAILED, NotPermitted),
    ],
)
async def test_what_the_server_refuses_is_a_typed_error_and_can_be_tried_again(
    broker: KafkaBroker, cluster: Cluster, question: str, code: int, kind: type[Exception]
) -> None:
    cluster.refuse(question, code)
    with pytest.raises(kind):
        await broker.ensure(["orders"], [BILLING])
    await broker.ensure(["orders"], [BILLING])
    assert await broker.differences(["orders"], [BILLING]) == []


async def test_what_another_process_has_just_made_is_no_error(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    await broker.ensure([], [])
    cluster.make("orders", 2)
    cluster.refuse("describe_topics", KafkaError.UNKNOWN_TOPIC_OR_PART)
    cluster.refuse("create_topics", KafkaError.TOPIC_ALREADY_EXISTS)
    await broker.ensure(["orders"], [])


async def test_a_leader_that_has_just_changed_is_asked_again(
    ready: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("list_offsets", KafkaError.NOT_LEADER_FOR_PARTITION)
    assert (await ready.lag(BILLING)).ready == 0
    cluster.refuse("list_offsets", KafkaError.LEADER_NOT_AVAILABLE)
    cluster.refuse("list_topics", codes.TIMED_OUT)
    with pytest.raises(Unavailable):
        await ready.lag(BILLING)


async def test_the_start_of_a_group_that_cannot_be_set_is_told(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    for question in ("alter_consumer_group_offsets", "alter_one"):
        cluster.refuse(question, KafkaError.GROUP_AUTHORIZATION_FAILED)
        with pytest.raises(NotPermitted, match="set the start of group"):
            await broker.ensure(["orders"], [BILLING])


# Publishing


async def test_what_is_published_is_stored_and_nothing_twice(
    ready: KafkaBroker, cluster: Cluster
) -> None:
    await ready.publish([])
    await ready.publish([message("1", "a"), message("2")])
    assert cluster.values("orders") == [b'"x"'] * 2
    assert sorted(one.message.id for one in await ready.browse(BILLING)) == ["1", "2"]


async def test_each_message_says_what_became_of_it(ready: KafkaBroker, cluster: Cluster) -> None:
    cluster.refuse("store", codes.TIMED_OUT, KafkaError.INVALID_RECORD)
    with pytest.raises(Unpublished) as caught:
        await ready.publish([message("1", "a"), message("2", "b"), message("3", "c")])
    assert [type(error) for error in caught.value.errors] == [Unanswered, NotSent, type(None)]
    assert len(cluster.values("orders")) == 1


async def test_what_is_refused_beside_a_message_that_is_too_large_is_sent_again(
    ready: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("store", *[KafkaError.MSG_SIZE_TOO_LARGE] * 4)  # all three, and the first again
    with pytest.raises(Unpublished) as caught:
        await ready.publish([message("1", "a"), message("2", "b"), message("3")])
    assert [type(error) for error in caught.value.errors] == [NotSent, type(None), type(None)]
    assert len(cluster.values("orders")) == 2


async def test_nothing_overtakes_its_key_because_it_was_sent_again(
    ready: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("store", *[KafkaError.MSG_SIZE_TOO_LARGE] * 3)
    with pytest.raises(Unpublished) as caught:
        await ready.publish([message("1", "a"), message("2", "a"), message("3", "b")])
    assert [type(error) for error in caught.value.errors] == [NotSent, NotSent, type(None)]


async def test_a_publish_that_cannot_even_ask_sends_nothing(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("describe_topics", codes.TIMED_OUT)
    with pytest.raises(Unpublished) as caught:
        await broker.publish([message("1")])
    [error] = caught.value.errors
    assert isinstance(error, NotSent)
    assert error.id == "1"


async def test_a_closed_broker_takes_nothing(broker: KafkaBroker) -> None:
    await broker.close()
    await broker.close()
    with pytest.raises(NotSent, match="closed"):
        await broker.publish([message("1")])


# Asking about groups that are not there


async def test_a_group_that_was_never_ensured_is_misuse(broker: KafkaBroker) -> None:
    strange = Source("orders", "strange")
    for ask in (broker.lag, broker.pause, broker.resume, broker.browse, broker.consume):
        with pytest.raises(Misuse, match="there is no group orders/strange: ensure it first"):
            await ask(strange)
    await broker.retire(strange)


async def test_what_is_delayed_can_be_browsed_only(ready: KafkaBroker) -> None:
    assert await ready.browse(BILLING, part=Part.DELAYED) == []
    with pytest.raises(Misuse, match="can be browsed, not consumed"):
        await ready.consume(BILLING, part=Part.DELAYED)


# Pausing and retiring


async def test_a_pause_is_kept_by_the_cluster(ready: KafkaBroker, cluster: Cluster) -> None:
    await ready.pause(BILLING)
    other = KafkaBroker(OPTIONS, clock=AsyncioClock())
    assert (await other.lag(BILLING)).paused
    await ready.resume(BILLING)
    assert not (await other.lag(BILLING)).paused
    await other.close()


async def test_a_retired_group_is_gone_with_its_topics(
    ready: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("delete_consumer_groups", KafkaError.NON_EMPTY_GROUP)
    with pytest.raises(Misuse, match="has workers in other processes"):
        await ready.retire(BILLING)
    cluster.refuse("delete_consumer_groups", codes.TIMED_OUT)
    with pytest.raises(Unavailable):
        await ready.retire(BILLING)
    cluster.refuse("delete_topics", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(NotPermitted, match="delete topic"):
        await ready.retire(BILLING)
    cluster.refuse("delete_consumer_groups", KafkaError.GROUP_ID_NOT_FOUND)
    await ready.retire(BILLING)
    assert {topic for topic, _ in cluster.ends} == {"orders", CONTROL}
    assert await ready.sources() == []
    assert cluster.configs["orders"]["retention.ms"] == "60000"


async def test_a_topic_that_will_not_go_is_told(
    ready: KafkaBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncioClock, "now", Skipping().now)
    monkeypatch.setattr("kafka_fake.FakeAdmin.delete_topics", lambda *_: {})
    with pytest.raises(Unavailable, match="was deleted, and is still there"):
        await ready.retire(BILLING)


class Skipping:
    """A clock that goes on a second each time it is asked."""

    def __init__(self) -> None:
        self._now = 1_000.0

    def now(self, _: object = None) -> float:
        self._now += 1.0
        return self._now
