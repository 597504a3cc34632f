"""The small parts around Kafka's driver: bells, an office, commits, answers, reports, positions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka_fake import FakeProducer, install
from kafka_fake_cluster import Came
from kafka_parts import Partition, record

from callcast.brokers.kafka import answers, codes, commits, positions, sender
from callcast.brokers.kafka.answers import Answers
from callcast.brokers.kafka.asking import administrator
from callcast.brokers.kafka.bells import Bell, Bells
from callcast.brokers.kafka.commits import PACE, REFUSED_PAUSE, Commits
from callcast.brokers.kafka.control import Roll
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.office import Office
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.positions import GROUPS_MAX, Positions
from callcast.brokers.kafka.reading import Harvest
from callcast.brokers.kafka.sender import Parcel, Sender
from callcast.brokers.kafka.window import Commit
from callcast.brokers.kafka.wire import Record
from callcast.core.errors import Misuse, NotSent, Unavailable
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
    bells.ring([bell])
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


# Commits


class Committing:
    """The commits of a member whose partition has three messages."""

    def __init__(self) -> None:
        self.partition = Partition([record(at) for at in range(3)], 3)
        self.clock = ManualClock()
        self.sent: list[Sequence[Commit]] = []
        self.refuses = False
        self.commits = Commits(
            self.partition.desk, threading.Lock(), send=self.send, clock=self.clock
        )

    def send(self, plans: Sequence[Commit]) -> Sequence[Commit]:
        self.sent.append(plans)
        return plans if self.refuses else ()

    def done(self) -> None:
        """One more message is done."""
        self.partition.settle(self.partition.take(1))


async def test_commits_are_paced_unless_somebody_waits_for_one() -> None:
    one = Committing()
    one.commits.pump()
    taken = len(one.sent)
    one.done()
    one.commits.pump()
    assert len(one.sent) == taken
    await one.clock.advance(PACE)
    one.commits.pump()
    assert len(one.sent) == taken + 1
    one.done()
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    assert one.commits.is_awaited
    one.commits.pump()
    await waiting
    assert len(one.sent) == taken + 2
    assert not one.commits.is_awaited


async def test_who_waits_for_what_went_with_an_earlier_commit_waits_no_more() -> None:
    one = Committing()
    one.commits.pump()
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    count = len(one.sent)
    one.commits.pump()
    await waiting
    assert len(one.sent) == count


async def test_a_refused_commit_is_sent_again_after_a_while() -> None:
    one = Committing()
    one.done()
    one.refuses = True
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    one.commits.pump()
    one.refuses = False
    one.commits.pump()
    assert len(one.sent) == 1
    assert not waiting.done()
    await one.clock.advance(REFUSED_PAUSE)
    one.commits.pump()
    await waiting
    assert [plan.offset for plans in one.sent for plan in plans] == [1, 1]
    assert one.partition.window.base == 1


async def test_nobody_waits_for_a_commit_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "PATIENCE", 0.01)
    one = Committing()
    with pytest.raises(Unavailable, match="no commit was accepted within"):
        await one.commits.durable()
    one.commits.pump()
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    one.commits.end()
    await waiting
    await one.commits.durable()
    one.done()
    count = len(one.sent)
    await one.clock.advance(PACE)
    one.commits.pump()
    assert len(one.sent) == count


def test_a_commit_whose_waiter_is_gone_with_its_loop_is_nobody_s() -> None:
    one = Committing()
    future = of_another_loop(lambda: asyncio.get_running_loop().create_future())
    one.commits._waiting.append(future)  # type: ignore[arg-type]
    one.commits.pump()
    assert not one.commits.is_awaited


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
    one.close(1.0)
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
    one.close(1.0)
    await asyncio.sleep(0)
    assert waiting.cancelled()
    assert cluster.values("orders") == [b"1"]


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
