"""What a group decides about one process: partitions that come and go, in the driver's thread."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from confluent_kafka import KafkaError
from kafka_fake import FakeConsumer, install
from kafka_fake_cluster import Cluster, Place
from kafka_parts import PLACE, record

from callcast.brokers.kafka import codes, heirs, share
from callcast.brokers.kafka.desk import Desk
from callcast.brokers.kafka.faults import Faults
from callcast.brokers.kafka.names import names_of
from callcast.brokers.kafka.options import Options
from callcast.brokers.kafka.share import LAST_WAIT, Bench, Habits, Share
from callcast.core.errors import NotPermitted, Unavailable
from callcast.core.outcome import DONE
from callcast.ports.broker import Source
from callcast.testing import ManualClock

BILLING = Source("orders", "billing")
NAMES = names_of(BILLING)
GROUP = NAMES.group


class Ticking(ManualClock):
    """A clock that goes on by a step each time it is asked: no test waits for it."""

    step = 0.5

    def now(self) -> float:
        self._ticks = getattr(self, "_ticks", 0.0) + self.step
        return super().now() + self._ticks


def habits_of(
    clock: ManualClock, revoke_wait: float, config: Mapping[str, str] | None = None
) -> Habits:
    faults = Faults(Options(servers="one:9092"), clock)
    return Habits(config=config or {}, clock=clock, faults=faults, revoke_wait=revoke_wait)


class Alone:
    """A share that is polled by the test, of a member without a thread."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        revoke_wait: float = 5.0,
        config: Mapping[str, str] | None = None,
    ) -> None:
        cluster.make("orders", 2)
        self.cluster = cluster
        self.desk = Desk(BILLING)
        habits = habits_of(Ticking(), revoke_wait, config)
        self.bench = Bench(self.desk, habits)
        self.share = Share(GROUP, self.bench)
        self.share.subscribe(["orders"])
        self.hand = self.desk.join()

    @property
    def driver(self) -> FakeConsumer:
        [found] = self.cluster.members[GROUP]
        return found

    def feed(self, count: int, *, value: bytes = b"{}") -> None:
        records = [record(offset, value=value) for offset in range(count)]
        self.desk.feed(PLACE, map(self.desk.read, records), now=self.bench.clock.now(), wall=0.0)

    def take(self, count: int) -> list:
        return self.desk.take(self.hand, count, lease=60.0, now=self.bench.clock.now())[0]

    def commit(self) -> dict[Place, tuple[int, str]]:
        """Commit what there is, and give it."""
        plans = self.desk.plans(self.bench.clock.now())
        assert self.share.commit(plans) == []
        for plan in plans:
            plan.window.committed(plan)
        at = self.cluster.committed[GROUP]
        places = [(plan.window.topic, plan.window.partition) for plan in plans]
        return {place: at[place] for place in places}

    def settle(self, taken: list) -> None:
        self.desk.settle(self.hand, [(one, DONE) for one in taken], self.bench.clock.now())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Alone:
    monkeypatch.setattr(share, "AGAIN", 0.001)
    monkeypatch.setattr(share, "LOOK", 0.001)
    return Alone(install(monkeypatch))


def test_what_is_assigned_begins_where_it_was_left(alone: Alone) -> None:
    alone.cluster.committed[GROUP][PLACE] = (7, "c1 0 1,2s")
    assert not alone.share.is_assigned
    assert alone.share.poll(0.0) == ()
    assert alone.share.is_assigned
    assert alone.desk.windows[PLACE].position == 7
    assert alone.driver.positions == {PLACE: 7, ("orders", 1): 0}


def test_a_partition_that_cannot_be_asked_about_is_not_read(alone: Alone) -> None:
    """It is not read from its start instead, however long the answer takes."""
    alone.cluster.committed[GROUP][PLACE] = (7, "")
    alone.cluster.refuse("committed", *[codes.TIMED_OUT] * int(LAST_WAIT / Ticking.step + 3))
    alone.share.poll(0.0)
    assert isinstance(alone.bench.trouble, Unavailable)
    assert "no answer: " in str(alone.bench.trouble)
    assert alone.desk.windows[PLACE].position == 7


def test_an_error_of_one_partition_s_position_is_no_position(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.cluster.committed[GROUP][PLACE] = (7, "")
    well, calls = FakeConsumer.committed, []

    def committed(driver: FakeConsumer, parts: list, **more: object) -> list:
        found = well(driver, parts, **more)
        calls.append(found)
        if len(calls) > 1:
            return found
        bad = KafkaError(KafkaError.NOT_COORDINATOR)
        return [type("Part", (), {"error": bad})(), *found[1:]]

    monkeypatch.setattr(FakeConsumer, "committed", committed)
    alone.share.poll(0.0)
    assert len(calls) == 2
    assert alone.desk.windows[PLACE].position == 7


def test_who_is_to_stop_asks_no_more(alone: Alone) -> None:
    alone.bench.is_stopping = True
    alone.share.poll(0.0)
    assert alone.desk.windows == {}


def test_a_full_partition_is_paused_and_goes_on_below_half(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "OPEN_MAX", 10)
    alone.share.poll(0.0)
    alone.feed(10)
    alone.share.regulate(["other"])
    assert alone.driver.paused == set()
    for _ in range(2):
        alone.share.regulate(["orders"])
        assert alone.driver.paused == {PLACE}
    alone.settle(alone.take(5))
    alone.share.regulate(["orders"])
    assert alone.driver.paused == {PLACE}
    alone.settle(alone.take(1))
    alone.share.regulate(["orders"])
    assert alone.driver.paused == set()


def test_large_bodies_fill_a_partition_too(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "SIZE_MAX", 100)
    alone.share.poll(0.0)
    alone.feed(2, value=b"x" * 50)
    alone.share.regulate(["orders"])
    assert alone.driver.paused == {PLACE}


def test_enough_waits_until_workers_have_used_some_of_it(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "ENOUGH", 10)
    alone.share.poll(0.0)
    alone.feed(9)
    assert not alone.bench.has_enough()
    alone.feed(10)
    assert alone.bench.has_enough()
    assert alone.bench.has_enough(0.001)
    alone.settle(alone.take(1))
    assert not alone.bench.has_enough()


def test_nobody_waits_for_room_in_a_member_that_is_to_stop(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "ENOUGH", 1)
    alone.share.poll(0.0)
    alone.feed(1)
    alone.bench.is_stopping = True
    assert not alone.bench.has_enough(60.0)


def test_what_is_revoked_commits_what_is_done_before_it_goes(alone: Alone) -> None:
    alone.share.poll(0.0)
    alone.feed(3)
    alone.settle(alone.take(2))
    alone.driver.revoke(PLACE)
    assert alone.cluster.committed[GROUP][PLACE] == (2, "")
    assert list(alone.desk.windows) == [("orders", 1)]
    assert list(alone.driver.positions) == [("orders", 1)]


def test_what_is_revoked_goes_at_once_and_says_what_is_still_out(alone: Alone) -> None:
    """The driver reads nothing at all until it is let go; who gets it waits for what is out."""
    alone.share.poll(0.0)
    alone.feed(3)
    taken = alone.take(2)
    alone.settle(taken[1:])
    alone.driver.revoke(PLACE)
    assert alone.cluster.committed[GROUP][PLACE] == (0, "c1 0 1o,1s,h1")
    assert list(alone.driver.positions) == [("orders", 1)]
    alone.settle(taken[:1])
    assert alone.commit() == {PLACE: (2, "")}
    alone.desk.tick(alone.bench.clock.now())
    assert not alone.desk.handed_on


def test_who_is_turned_out_finishes_nothing_any_more(alone: Alone) -> None:
    alone.share.poll(0.0)
    alone.feed(1)
    taken = alone.take(1)
    alone.driver.revoke(PLACE)
    alone.driver.revoke(("orders", 1), is_lost=True)
    _, lost = alone.desk.settle(alone.hand, [(one, DONE) for one in taken], 0.0)
    assert lost == taken
    assert alone.commit() == {}


def test_a_partition_is_begun_when_the_one_before_is_through_with_it(alone: Alone) -> None:
    alone.cluster.committed[GROUP][PLACE] = (7, "c1 0 1o,h1")
    alone.share.poll(0.0)
    alone.share.inherit()
    assert list(alone.desk.windows) == list(alone.driver.positions) == [("orders", 1)]
    alone.cluster.committed[GROUP][PLACE] = (8, "")
    alone.share.inherit()
    assert alone.desk.windows[PLACE].position == alone.driver.positions[PLACE] == 8


def test_a_partition_is_begun_when_nothing_is_heard_of_the_one_before(alone: Alone) -> None:
    """What it had is a crash, and the word that it is handed on goes with the next commit."""
    alone.cluster.committed[GROUP][PLACE] = (7, "c1 0 1o,h1")
    alone.share.poll(0.0)
    for _ in range(int(heirs.PATIENCE / Ticking.step)):
        alone.share.inherit()
    assert alone.desk.windows[PLACE].position == 7
    assert alone.commit()[PLACE] == (7, "c1 0 1c1")


def test_a_partition_that_was_waited_for_and_moves_on_is_not_begun(alone: Alone) -> None:
    alone.cluster.committed[GROUP][PLACE] = (7, "c1 0 1o,h1")
    alone.share.poll(0.0)
    alone.driver.revoke(PLACE)
    assert alone.cluster.committed[GROUP][PLACE] == (7, "c1 0 1o,h1")
    alone.cluster.committed[GROUP][PLACE] = (8, "")
    alone.share.inherit()
    assert PLACE not in alone.driver.positions


def test_a_server_that_says_nothing_of_what_is_waited_for_is_told_of_when_it_lasts(
    alone: Alone,
) -> None:
    alone.cluster.committed[GROUP][PLACE] = (7, "c1 0 1o,h1")
    alone.share.poll(0.0)
    alone.cluster.refuse("committed", *[codes.TIMED_OUT] * 100)
    alone.share.inherit()
    assert alone.bench.trouble is None
    for _ in range(int(LAST_WAIT / Ticking.step)):
        alone.share.inherit()
    assert "no answer: " in str(alone.bench.trouble)
    assert PLACE not in alone.driver.positions


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_is_taken_away_twice_is_given_up_once(alone: Alone, is_lost: bool) -> None:
    alone.share.poll(0.0)
    alone.driver.revoke(PLACE)
    alone.driver.revoke(PLACE, ("orders", 1), is_lost=is_lost)
    assert not alone.desk.windows
    assert not alone.driver.positions


@pytest.mark.parametrize(
    ("config", "left"),
    [({}, set()), ({"group.instance.id": "till"}, {PLACE, ("orders", 1)})],
)
def test_who_leaves_gives_up_all_before_the_driver_closes_unless_its_name_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, str], left: set[Place]
) -> None:
    alone = Alone(install(monkeypatch), config=config)
    alone.share.poll(0.0)
    driver = alone.driver
    alone.share.close()
    assert driver.closed_with == left
    assert not alone.desk.windows


def test_who_cannot_give_up_closes_all_the_same(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.share.poll(0.0)
    driver = alone.driver
    monkeypatch.setattr(driver, "unsubscribe", lambda: None)
    alone.share.close()
    assert driver.closed_with == {PLACE, ("orders", 1)}


def test_what_is_out_too_long_is_a_crash_for_the_next_owner(alone: Alone) -> None:
    alone.share.poll(0.0)
    alone.feed(2)
    alone.take(1)
    alone.driver.revoke(PLACE)
    for _ in range(int(5.0 / Ticking.step)):
        alone.desk.tick(alone.bench.clock.now())
    assert alone.commit() == {PLACE: (0, "c1 0 1c1")}


@pytest.mark.parametrize("question", ["commit", "commit_one"])
def test_a_last_commit_is_tried_again_while_that_can_help(alone: Alone, question: str) -> None:
    alone.share.poll(0.0)
    alone.feed(1)
    alone.settle(alone.take(1))
    alone.cluster.refuse(question, KafkaError.REBALANCE_IN_PROGRESS, codes.TIMED_OUT)
    alone.driver.revoke(PLACE)
    assert alone.cluster.committed[GROUP][PLACE] == (1, "")
    assert alone.bench.trouble is None


@pytest.mark.parametrize(
    ("code", "times"),
    [(KafkaError.ILLEGAL_GENERATION, 1), (KafkaError.REBALANCE_IN_PROGRESS, 100)],
)
def test_a_last_commit_that_is_refused_for_good_is_told(
    alone: Alone, code: int, times: int
) -> None:
    alone.share.poll(0.0)
    alone.feed(1)
    alone.settle(alone.take(1))
    alone.cluster.refuse("commit", *[code] * times)
    alone.driver.revoke(PLACE)
    assert PLACE not in alone.cluster.committed[GROUP]
    assert "could not commit" in str(alone.bench.trouble)
    assert PLACE not in alone.desk.windows


def test_a_partition_that_was_never_read_commits_nothing_but_what_was_noted(alone: Alone) -> None:
    alone.share.poll(0.0)
    alone.driver.revoke(PLACE, is_lost=True)
    assert PLACE not in alone.cluster.committed[GROUP]
    alone.driver.revoke(("orders", 9))
    assert list(alone.desk.windows) == [("orders", 1)]


def test_servers_that_are_away_are_told(alone: Alone) -> None:
    tell = alone.driver.config["error_cb"]
    refused = "one:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused"
    tell(KafkaError(codes.TRANSPORT, refused))
    assert alone.bench.trouble is None
    tell(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert "nobody listens at one:9092" in str(alone.bench.trouble)


def test_a_password_that_is_wrong_now_is_told_as_such(alone: Alone) -> None:
    tell = alone.driver.config["error_cb"]
    tell(KafkaError(codes.AUTHENTICATION, "one:9092/1: SASL authentication error: no"))
    assert isinstance(alone.bench.trouble, NotPermitted)
    assert "check user and password" in str(alone.bench.trouble)
