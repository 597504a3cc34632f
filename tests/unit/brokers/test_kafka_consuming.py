"""Consuming from Kafka, on a cluster in memory: verdicts, dead letters, rebalances and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from confluent_kafka import KafkaError
from kafka_fake import FakeConsumer, install
from kafka_fake_cluster import Came, Cluster
from kafka_group_kit import BILLING, NAMES, OPTIONS, PATIENCE, message, opened, until

from callcast.brokers.kafka import KafkaBroker, codes, wire
from callcast.core.errors import Misuse, Unavailable
from callcast.core.outcome import DEAD_REASON, DONE, Dead, Later, Release
from callcast.ports.broker import Consumer, Delivery, Part, Source, Unsettled
from callcast.runtime.clock import AsyncioClock

ORDERED = Source("orders", "billing", ordered=True)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch)


@pytest.fixture
async def broker(cluster: Cluster) -> AsyncGenerator[KafkaBroker]:
    broker = KafkaBroker(OPTIONS, clock=AsyncioClock())
    yield broker
    await broker.close()
    assert cluster.clients == 0


def ids(deliveries: object) -> list[str]:
    return [one.message.id for one in deliveries]  # type: ignore[attr-defined]


def member(cluster: Cluster, group: str = NAMES.group) -> FakeConsumer:
    """The driver's consumer in this group."""
    [found] = cluster.members[group]
    return found


# Verdicts


async def test_what_is_done_is_committed(broker: KafkaBroker, cluster: Cluster) -> None:
    consumer = await opened(broker, BILLING, "1", "2")
    taken = await consumer.fetch(10, PATIENCE)
    assert ids(taken) == ["1", "2"]
    lag = await broker.lag(BILLING)
    assert (lag.ready, lag.leased) == (0, 2)
    await consumer.settle([(one, DONE) for one in taken])
    await until(lambda: cluster.committed[NAMES.group]["orders", 0][0] == 2)
    assert await consumer.fetch(10, 0.0) == ()


async def test_later_goes_to_a_retry_topic_and_comes_when_it_is_due(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1")
    [first] = await consumer.fetch(10, PATIENCE)
    await consumer.settle([(first, Later(0.3, notes={"callcast-first-failed-at": "now"}))])
    assert len(cluster.values(NAMES.retries[0])) == 1
    lag = await broker.lag(BILLING)
    assert (lag.ready, lag.leased, lag.delayed) == (0, 0, 1)
    [glimpse] = await broker.browse(BILLING, part=Part.DELAYED)
    assert (glimpse.message.id, glimpse.round) == ("1", 1)
    [again] = await consumer.fetch(10, PATIENCE)
    assert (again.message.id, again.round) == ("1", 1)
    assert again.message.headers["callcast-first-failed-at"] == "now"


async def test_a_copy_that_is_refused_leaves_its_delivery_ours(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1")
    [first] = await consumer.fetch(10, PATIENCE)
    cluster.refuse("store", KafkaError.MSG_SIZE_TOO_LARGE)
    with pytest.raises(Unsettled, match="store refused") as caught:
        await consumer.settle([(first, Dead("broken"))])
    assert (caught.value.lost, caught.value.failed) == ((), (first,))
    await consumer.settle([(first, Dead("broken"))])
    assert (await broker.lag(BILLING)).dead == 1


async def test_what_is_not_ours_any_more_is_told(broker: KafkaBroker, cluster: Cluster) -> None:
    consumer = await opened(broker, BILLING, "1")
    [first] = await consumer.fetch(10, PATIENCE)
    await consumer.settle([(first, Release())])
    with pytest.raises(Unsettled) as caught:
        await consumer.settle([(first, DONE), (first, Dead("broken"))])
    assert caught.value.lost == (first, first)
    await consumer.close()
    with pytest.raises(Unsettled, match="closed"):
        await consumer.settle([(first, DONE)])
    await consumer.settle([])


async def test_a_copy_that_is_stored_after_its_partition_moved_is_lost_here(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1")
    [first] = await consumer.fetch(10, PATIENCE)
    await until(lambda: member(cluster).is_assigned)
    cluster.refusals["full"].extend([KafkaError(codes.QUEUE_FULL)] * 4)
    settling = asyncio.ensure_future(consumer.settle([(first, Dead("broken"))]))
    await asyncio.sleep(0.02)
    member(cluster).revoke(("orders", 0), is_lost=True)
    with pytest.raises(Unsettled) as caught:
        await settling
    assert caught.value.lost == (first,)


# Suspects


async def test_a_suspect_runs_alone_when_there_is_nothing_else(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1", "2")
    await consumer.close()
    cluster.committed[NAMES.group]["orders", 0] = (0, "c1 0 1c2")
    consumer = await broker.consume(BILLING)
    first = await consumer.fetch(10, PATIENCE)
    assert ids(first) == ["2"]
    await consumer.settle([(one, DONE) for one in first])
    [suspect] = await consumer.fetch(10, PATIENCE)
    assert (suspect.message.id, suspect.crashes) == ("1", 2)
    text = cluster.committed[NAMES.group]["orders", 0][1]
    assert text == "c1 0 1oc2,1s"


# Refusals


async def test_a_commit_that_is_refused_is_tried_again(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker, BILLING, "1")
    cluster.refuse("commit", KafkaError.REBALANCE_IN_PROGRESS)
    cluster.refuse("commit_one", KafkaError.REBALANCE_IN_PROGRESS)
    [first] = await consumer.fetch(1, PATIENCE)
    await consumer.settle([(first, DONE)])
    await until(lambda: cluster.committed[NAMES.group]["orders", 0][0] == 1)


async def test_a_question_is_asked_until_there_is_an_answer(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    """Here of a partition that was added after the group: it begins at its beginning."""
    await broker.ensure(["orders"], [BILLING])
    await broker.publish([message("0", "a"), message("1", "a")])
    cluster.committed[NAMES.group].clear()
    cluster.begins["orders", 0] = 1
    cluster.refuse("committed", codes.TIMED_OUT)
    cluster.refuse("watermarks", codes.TIMED_OUT)
    consumer = await broker.consume(BILLING)
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while not found:
            try:
                found += await consumer.fetch(1, 1.0)
            except Unavailable:
                continue
    assert ids(found) == ["1"]


async def test_a_group_that_refuses_us_is_tried_again(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    cluster.refuse("subscribe", KafkaError.GROUP_AUTHORIZATION_FAILED)
    cluster.refuse("close", codes.TIMED_OUT)
    consumer = await opened(broker, BILLING, "1")
    async with asyncio.timeout(PATIENCE):
        while not await consumer.fetch(1, 1.0):
            pass


# What a poll may say


async def test_a_position_that_is_gone_is_told_with_its_remedy(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker)
    cluster.refuse("poll", codes.NO_OFFSET)
    with pytest.raises(Misuse, match="go on at the oldest that is kept"):
        await consumer.fetch(1, PATIENCE)


async def test_a_server_that_is_away_is_told_and_forgotten_when_it_is_back(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    consumer = await opened(broker)
    cluster.refuse("poll", codes.TRANSPORT)
    with pytest.raises(Unavailable, match="could not fetch for group"):
        await consumer.fetch(1, PATIENCE)
    assert await consumer.fetch(1, 0.05) == ()
    await broker.publish([message("1")])
    assert ids(await consumer.fetch(1, PATIENCE)) == ["1"]


async def test_a_bad_record_is_a_message_like_any_other(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    """Nothing that a record says stops its partition: what to do with it is the worker's matter."""
    consumer = await opened(broker)

    def fill(came: Came) -> None:
        came.stored_headers = [("callcast-round", b"nan"), ("ce_time", b"\xff"), ("x", None)]

    cluster.append(("orders", 0), fill)
    cluster.skip(("orders", 0))
    await broker.publish([message("1", "a")])
    odd, good = await consumer.fetch(10, PATIENCE)
    assert (odd.message.id, good.message.id) == ("orders/0/0", "1")
    await consumer.settle([(odd, Dead("undecodable")), (good, DONE)])
    await until(lambda: cluster.committed[NAMES.group]["orders", 0][0] == 3)
    [letter] = await broker.browse(BILLING, part=Part.DEAD)
    assert (letter.message.id, letter.message.key) == ("orders/0/0", None)


# Pausing


async def test_a_paused_group_hands_out_nothing_until_it_is_resumed(broker: KafkaBroker) -> None:
    consumer = await opened(broker, ORDERED, "1")
    await broker.pause(ORDERED)
    assert await consumer.fetch(1, 0.1) == ()
    await broker.resume(ORDERED)
    assert ids(await consumer.fetch(1, PATIENCE)) == ["1"]


# Dead letters


async def dead(broker: KafkaBroker, *names: str) -> Consumer:
    """A consumer of these dead letters."""
    consumer = await opened(broker, BILLING, *names)
    taken = await consumer.fetch(10, PATIENCE)
    await consumer.settle([(one, Dead("broken")) for one in taken])
    return await broker.consume(BILLING, part=Part.DEAD, lease=0.2)


async def test_a_dead_letter_is_leased_settled_and_gone(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    letters = await dead(broker, "1", "2")
    assert [one.position for one in await broker.browse(BILLING, part=Part.DEAD, after="0")] == [
        "1"
    ]
    one, two = await letters.fetch(10, PATIENCE)
    assert one.message.headers[DEAD_REASON] == "broken"
    assert await letters.fetch(10, 0.0) == ()
    await letters.settle([(one, DONE), (two, Release())])
    assert cluster.values(NAMES.dead)[-1] is None
    assert ids(await letters.fetch(10, 0.0)) == ["2"]
    assert (await broker.lag(BILLING)).dead == 1


async def test_the_lease_of_a_letter_ends_unless_it_is_renewed(broker: KafkaBroker) -> None:
    letters = await dead(broker, "1", "2")
    kept, left = await letters.fetch(10, PATIENCE)
    for _ in range(3):
        await asyncio.sleep(0.1)
        letters.renew([kept])
    [again] = await letters.fetch(10, 0.0)
    assert (again.message.id, again.crashes) == (left.message.id, 1)
    with pytest.raises(Unsettled) as caught:
        await letters.settle([(kept, DONE), (left, DONE)])
    assert caught.value.lost == (left,)


async def test_a_letter_put_off_comes_later_and_one_that_dies_again_has_its_new_reason(
    broker: KafkaBroker,
) -> None:
    letters = await dead(broker, "1", "2")
    one, two = await letters.fetch(10, PATIENCE)
    await letters.settle([(one, Later(0.1)), (two, Dead("still broken"))])
    [again] = await letters.fetch(10, 0.0)
    assert again.message.headers[DEAD_REASON] == "still broken"
    await letters.settle([(again, DONE)])
    assert ids(await letters.fetch(10, PATIENCE)) == ["1"]


async def test_a_letter_whose_tombstone_is_refused_stays_ours(
    broker: KafkaBroker, cluster: Cluster
) -> None:
    letters = await dead(broker, "1")
    [one] = await letters.fetch(10, PATIENCE)
    cluster.refuse("store", codes.TIMED_OUT)
    with pytest.raises(Unsettled, match="the dead topic refused them") as caught:
        await letters.settle([(one, DONE)])
    assert caught.value.failed == (one,)
    await letters.settle([(one, DONE)])
    assert (await broker.lag(BILLING)).dead == 0


async def died_again(cluster: Cluster, *, compacted: bool) -> None:
    """The same message dies again in another process, and the log may be compacted then."""
    [(offset, earlier)] = cluster.logs[NAMES.dead, 0].items()

    def fill(came: Came) -> None:
        came.stored_key, came.stored_value = earlier.key(), b"later"
        came.stored_headers = wire.with_headers(earlier.headers() or [], {DEAD_REASON: "again"})

    cluster.append((NAMES.dead, 0), fill)
    if compacted:
        del cluster.logs[NAMES.dead, 0][offset]


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("verdict", [DONE, Dead("still broken")])
async def test_the_verdict_on_an_earlier_death_leaves_the_later_letter(
    broker: KafkaBroker, cluster: Cluster, verdict: Dead, *, compacted: bool
) -> None:
    letters = await dead(broker, "1")
    [earlier] = await letters.fetch(10, PATIENCE)
    await died_again(cluster, compacted=compacted)
    await letters.settle([(earlier, verdict)])
    [later] = await letters.fetch(10, 0.0)
    assert (later.message.body, later.message.headers[DEAD_REASON]) == (b"later", "again")
    assert (await broker.lag(BILLING)).dead == 1


async def test_closing_gives_letters_back_and_wakes_who_waits(broker: KafkaBroker) -> None:
    letters = await dead(broker, "1")
    await letters.fetch(10, PATIENCE)
    waiting = asyncio.ensure_future(letters.fetch(10, PATIENCE))
    await asyncio.sleep(0.02)
    await letters.close()
    await letters.close()
    assert await waiting == ()
    other = await broker.consume(BILLING, part=Part.DEAD)
    assert ids(await other.fetch(10, 0.0)) == ["1"]


async def test_letters_that_cannot_be_read_are_given_back(
    broker: KafkaBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = await dead(broker, "1")
    await letters.fetch(0, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(FakeConsumer, "consume", None)
        with pytest.raises(TypeError):
            await letters.fetch(10, PATIENCE)
    assert ids(await letters.fetch(10, 0.0)) == ["1"]
