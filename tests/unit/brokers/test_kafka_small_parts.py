"""The small parts around Kafka's driver: bells, an office, answers, reports, positions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka_fake import FakeProducer, install
from kafka_fake_cluster import Came

from callcast.brokers.kafka import answers, codes, positions, sender
from callcast.brokers.kafka.answers import Answers
from callcast.brokers.kafka.asking import administrator
from callcast.brokers.kafka.bells import Bell, Bells
from callcast.brokers.kafka.control import Roll
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.office import Office
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.positions import GROUPS_MAX, Positions
from callcast.brokers.kafka.reading import Harvest
from callcast.brokers.kafka.sender import Parcel, Sender
from callcast.brokers.kafka.wire import Record
from callcast.core.errors import Misuse, NotSent
from callcast.ports.broker import Source
from callcast.runtime.clock import AsyncioClock
from callcast.testing import ManualClock

OPTIONS = Options(servers="one:9092")
BILLING = Source("orders", "billing")


def in_thread(work: Callable[[], object]) -> None:
    """Do it in another thread."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def of_another_loop(make: Callable[[], object]) -> object:
    """What is made in an event loop that is closed by now."""
    found: list[object] = []

    async def run() -> None:
        found.append(make())

    in_thread(lambda: asyncio.run(run()))
    return found[0]


# Bells


async def test_a_bell_that_rang_before_is_heard_unless_it_was_muted() -> None:
    bell = Bell()
    bell.ring()
    await bell.wait(60.0)
    bell.mute()
    await bell.wait(0.01)


async def test_a_bell_is_heard_from_another_thread() -> None:
    bell, bells = Bell(), Bells()
    bells.add(bell)
    waiting = asyncio.ensure_future(bell.wait(60.0))
    await asyncio.sleep(0)
    in_thread(bells.ring)
    in_thread(bells.ring)
    await waiting
    bells.discard(bell)
    bell.mute()
    bells.ring()
    bell.ring()
    await bell.wait(60.0)


def test_a_bell_of_a_closed_loop_rings_for_nobody() -> None:
    bell = of_another_loop(Bell)
    assert isinstance(bell, Bell)
    bell._waiting = bell._loop.create_future()
    bell.ring()
    assert bell._waiting is None


# The office


async def test_an_office_does_one_thing_after_the_other_and_hands_errors_on() -> None:
    office = Office()
    assert await office.do(lambda: 7) == 7
    with pytest.raises(KeyError):
        await office.do(lambda: {}["x"])
    started, go = threading.Event(), threading.Event()
    done: list[int] = []

    def slow() -> None:
        started.set()
        go.wait(5.0)
        done.append(1)

    waiting = asyncio.ensure_future(office.do(slow))
    await asyncio.sleep(0)
    assert started.wait(5.0)
    waiting.cancel()
    go.set()
    await office.close(lambda: done.append(2))
    assert done == [1, 2]
    await office.close(lambda: done.append(3))
    with pytest.raises(NotSent, match="closed"):
        await office.do(lambda: 7)
    assert done == [1, 2]


async def test_an_error_of_what_nobody_waits_for_is_nobody_s() -> None:
    office = Office()
    started, go = threading.Event(), threading.Event()

    def fails() -> None:
        started.set()
        go.wait(5.0)
        raise KeyError

    waiting = asyncio.ensure_future(office.do(fails))
    await asyncio.sleep(0)
    assert started.wait(5.0)
    waiting.cancel()
    go.set()
    await office.close(lambda: None)
    await asyncio.sleep(0)
    assert waiting.cancelled()


async def test_an_answer_to_a_loop_that_is_gone_is_nobody_s() -> None:
    office = Office()
    started, go = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        go.wait(5.0)

    async def ask() -> None:
        asked = asyncio.ensure_future(office.do(slow))
        await asyncio.sleep(0)
        asked.cancel()

    in_thread(lambda: asyncio.run(ask()))
    assert started.wait(5.0)
    go.set()
    await office.close(lambda: None)


# Answers


async def test_the_first_answer_is_not_waited_for_when_nobody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "FIRST", 0.05)
    monkeypatch.setattr(answers, "LOOK", 0.01)
    faults = Faults(OPTIONS, AsyncioClock())
    faults.note(KafkaError(codes.TRANSPORT, "one:9092/bootstrap: Connection refused"))
    faults.note(KafkaError(codes.ALL_BROKERS_DOWN))
    asked = Answers(faults, AsyncioClock())
    never: Future[int] = Future()
    with pytest.raises(KafkaException) as caught:
        await asked.of(never, lambda _: 0)
    assert caught.value.args[0].code() == codes.TIMED_OUT
    late: Future[int] = Future()
    asyncio.get_running_loop().call_later(0.02, late.set_result, 7)
    assert await asked.of(late, lambda _: 0) == 7
    never.set_exception(KafkaException(KafkaError(codes.TIMED_OUT)))


async def test_who_stops_waiting_leaves_the_driver_to_its_answer() -> None:
    asked = Answers(Faults(OPTIONS, AsyncioClock()), AsyncioClock())
    first: Future[int] = Future()
    first.set_result(1)
    assert await asked.of(first, lambda _: 0) == 1
    slow: Future[int] = Future()
    waiting = asyncio.ensure_future(asked.of(slow, lambda _: 0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    slow.set_exception(KafkaException(KafkaError(codes.TIMED_OUT)))
    await asyncio.sleep(0)


def test_settings_that_cannot_be_are_misuse() -> None:
    with pytest.raises(Misuse, match="the broker URL cannot be used: No such configuration"):
        administrator({"no.such.setting": "1"})


# Sending


async def test_a_full_queue_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "ROOM", 0.001)
    cluster = install(monkeypatch)
    cluster.make("orders", 1)
    cluster.refusals["full"].extend([KafkaError(codes.QUEUE_FULL)] * 3)
    one = Sender({})
    parcel = Parcel("orders", b"a", b"1", [], 0)
    assert await one.send([]) == {}
    assert await one.send([parcel, parcel]) == {}
    cluster.refuse("produce", KafkaError.MSG_SIZE_TOO_LARGE)
    errors = await one.send([parcel, parcel])
    assert {place: error.code() for place, error in errors.items()} == {
        0: KafkaError.MSG_SIZE_TOO_LARGE
    }
    one.close()
    assert cluster.values("orders") == [b"1"] * 3
    assert cluster.clients == 0


async def test_a_batch_whose_sender_gave_up_waiting_is_stored_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = install(monkeypatch)
    cluster.make("orders", 1)
    held = threading.Event()
    poll = FakeProducer.poll
    monkeypatch.setattr(FakeProducer, "poll", lambda *args: held.wait(5.0) and poll(*args))
    one = Sender({})
    waiting = asyncio.ensure_future(one.send([Parcel("orders", b"a", b"1", [], 0)]))
    await asyncio.sleep(0.02)
    waiting.cancel()
    held.set()
    one.close()
    await asyncio.sleep(0)
    assert waiting.cancelled()
    assert cluster.values("orders") == [b"1"]


async def test_who_waits_for_one_batch_does_not_wait_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "ROOM", 0.001)
    cluster = install(monkeypatch)
    cluster.make("orders", 1)
    both, held = threading.Event(), threading.Event()

    def flush(producer: FakeProducer, _timeout: float) -> None:
        both.wait(5.0)
        producer.poll(0)
        held.wait(5.0)  # a flush goes on while anything is under way

    monkeypatch.setattr(FakeProducer, "flush", flush)
    one = Sender({})
    first = asyncio.ensure_future(one.send([Parcel("orders", b"a", b"1", [], 0)]))
    await asyncio.sleep(0)
    cluster.refusals["full"].append(KafkaError(codes.QUEUE_FULL))
    second = asyncio.ensure_future(one.send([Parcel("orders", b"b", b"2", [], 0)]))
    await asyncio.sleep(0)
    both.set()
    try:
        assert await asyncio.wait_for(first, 2.0) == {}
    finally:
        held.set()
        assert await second == {}
        one.close()
    assert cluster.values("orders") == [b"1", b"2"]


# Positions, and reading


def test_only_so_many_groups_are_kept_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = install(monkeypatch)
    asked = Positions(OPTIONS, Faults(OPTIONS, ManualClock()))
    assert asked.committed("none", []) == {}
    for number in range(GROUPS_MAX + 3):
        asked.committed(f"g{number}", [("orders", 0)])
    assert cluster.clients == GROUPS_MAX
    asked.close()
    assert cluster.clients == 0


def test_a_position_that_has_an_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = type("Part", (), {"error": KafkaError(KafkaError.NOT_COORDINATOR)})()
    consumer = type("Consumer", (), {"poll": lambda *_: None, "committed": lambda *_, **__: [bad]})
    monkeypatch.setattr(positions, "Consumer", lambda _: consumer())
    with pytest.raises(KafkaException):
        Positions(OPTIONS, Faults(OPTIONS, ManualClock())).committed("g", [("orders", 0)])


def test_a_partition_has_its_share_at_its_end_or_its_limit() -> None:
    starts, ends = {("a", 0): 0, ("b", 0): 0, ("c", 0): 0}, {("a", 0): 5, ("b", 0): 5, ("c", 0): 5}
    harvest = Harvest(starts, ends, 2)
    harvest.take([Came(("a", 0), 0), Came(("a", 0), 1), Came(("a", 0), 2)])  # type: ignore[list-item]
    harvest.take([Came(("b", 0), 7)])  # type: ignore[list-item]
    harvest.take([Came(("c", 0), 5, KafkaError(codes.PARTITION_END))])  # type: ignore[list-item]
    assert {place: len(found) for place, found in harvest.found.items()} == {
        ("a", 0): 2, ("b", 0): 0, ("c", 0): 0,
    }  # fmt: skip
    assert harvest.missing == set()


# Which groups there are


def test_what_is_not_ours_in_the_control_topic_is_left_alone(cluster_roll: Roll) -> None:
    cluster_roll.apply(
        Record("callcast.control", 0, 0, 0.0, key, value, [])
        for key, value in [
            (None, b"1"),
            (b"\xff", b"1"),
            (b"other/orders/billing", b"1"),
            (b"group/orders/billing", b"not json"),
            (b"group/orders/crm", b'{"topic":"orders","group":"crm"}'),
            (b"group/orders/crm", b'{"topic":7}'),
            (b"pause/orders/crm", b"1"),
            (b"pause/orders/billing", None),
            (b"heard/mail", b"1"),
            (b"made/mail", b"1"),
        ]
    )
    assert list(cluster_roll.sources.values()) == [Source("orders", "crm")]
    assert cluster_roll.is_paused(Source("orders", "crm"))
    assert not cluster_roll.is_paused(BILLING)
    assert cluster_roll.was_heard("mail")
    assert cluster_roll.was_made("mail")
    assert not cluster_roll.was_heard("sms")


@pytest.fixture
def cluster_roll() -> Roll:
    return Roll()
