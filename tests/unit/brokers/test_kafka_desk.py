"""One member's deliveries: who holds what, what a verdict does, and what is lost with a partition."""

from __future__ import annotations

import math

import pytest
from kafka_parts import LEASE, PLACE, WALL, Partition, ids, record

from callcast.brokers.kafka import marks, shelved, wire
from callcast.brokers.kafka.desk import Desk
from callcast.brokers.kafka.window import Window
from callcast.brokers.kafka.wire import Record
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Delivery, Source

OTHER = ("orders", 1)


def loose(*keys: str | None, ordered: bool = False) -> Partition:
    """A partition with one message for each key."""
    records = [record(offset, key) for offset, key in enumerate(keys)]
    return Partition(records, len(records), ordered=ordered)


def dying(partition: Partition, times: int) -> None:
    """The member dies so many times with the next message alone."""
    for _ in range(times):
        partition.take(0) or partition.take(1)
        partition.take_over()


# Leases


def test_a_lease_that_ends_is_a_crash_and_its_verdict_is_lost() -> None:
    partition = loose("a", "b")
    [first] = partition.take(1)
    partition.now += LEASE
    [other, again] = partition.take()
    assert (ids([other, again]), again.crashes) == ([0, 1], 0)
    assert other.crashes == 1
    _, lost = partition.desk.settle(partition.hand, [(first, DONE)], partition.now)
    assert lost == [first]
    partition.settle([other, again])


def test_a_renewed_lease_holds_and_a_lost_one_stays_lost() -> None:
    partition = loose("a", "b")
    kept, left = partition.take()
    for _ in range(3):
        partition.now += LEASE / 2
        partition.desk.renew(partition.hand, [kept], partition.now + LEASE)
    assert ids(partition.take()) == [1]
    partition.desk.renew(partition.hand, [left], partition.now + LEASE)
    _, lost = partition.desk.settle(partition.hand, [(kept, DONE), (left, DONE)], partition.now)
    assert lost == [left]


def test_what_is_no_delivery_of_ours_is_lost() -> None:
    partition = loose("a")
    [first] = partition.take()
    strange = Delivery(first.message)
    partition.settle([first])
    _, lost = partition.desk.settle(partition.hand, [(strange, DONE), (first, DONE)], 0.0)
    assert lost == [strange, first]


def test_the_next_moment_at_which_something_happens_is_known() -> None:
    partition = loose("a", ordered=True)
    assert partition.desk.next_due == math.inf
    [first] = partition.take()
    assert partition.desk.next_due == LEASE
    partition.settle([first], Later(5.0))
    partition.now = LEASE
    partition.desk.tick(1.0)
    assert partition.desk.next_due == 5.0


# Verdicts


def test_what_is_released_comes_again_uncounted_after_its_time() -> None:
    partition = loose("a")
    partition.settle(partition.take(), Release(after=3.0))
    assert partition.take() == []
    partition.now += 3.0
    [again] = partition.take()
    assert (again.round, again.crashes) == (0, 0)


def test_later_of_an_ordered_source_holds_its_key_and_is_no_crash() -> None:
    partition = loose("a", "a", "b", ordered=True)
    dying(partition, 1)
    [head] = partition.take(1)
    assert head.crashes == 1
    partition.settle([head], Later(5.0, notes={"callcast-first-failed-at": "now"}))
    assert ids(partition.take()) == [2]
    partition.now += 4.9
    assert partition.take() == []
    partition.now += 0.2
    [head] = partition.take(1)
    assert (head.round, head.crashes) == (1, 0)
    assert head.message.headers["callcast-first-failed-at"] == "now"


@pytest.mark.parametrize("verdict", [Dead("broken"), Later(5.0)])
def test_a_verdict_that_needs_a_copy_holds_once_that_is_stored(verdict: Dead | Later) -> None:
    partition = loose("a")
    desk, hand = partition.desk, partition.hand
    taken = partition.take()
    [move], lost = desk.settle(hand, [(taken[0], verdict)], 0.0)
    assert (move.delivery, move.outcome, lost) == (taken[0], verdict, [])
    _, lost = desk.settle(hand, [(taken[0], DONE)], 0.0)
    assert lost == taken  # its first verdict is being carried out
    partition.commit()
    assert partition.offset == 0
    partition.now += LEASE
    assert partition.take() == []  # its lease does not end meanwhile
    assert desk.moved(hand, move, is_stored=False, now=partition.now)
    [move], _ = desk.settle(hand, [(taken[0], verdict)], partition.now - 1.0)
    assert desk.moved(hand, move, is_stored=True, now=partition.now)
    assert not desk.moved(hand, move, is_stored=True, now=partition.now)
    partition.commit()
    assert partition.offset == 1


def test_a_consumer_that_leaves_while_a_copy_is_on_its_way_leaves_nothing_stuck() -> None:
    """Who gets it next can settle it, whatever becomes of the copy."""
    partition = loose("a")
    desk, left = partition.desk, partition.hand
    [move], _ = desk.settle(left, [(partition.take()[0], Dead("broken"))], 0.0)
    desk.leave(left, 0.0)
    partition.hand = desk.join()
    again = partition.take()
    [other], _ = desk.settle(partition.hand, [(again[0], Dead("broken"))], 0.0)
    assert not desk.moved(left, move, is_stored=True, now=0.0)
    partition.now += LEASE
    assert partition.take() == []
    assert desk.moved(partition.hand, other, is_stored=True, now=partition.now)


# Consumers


def test_what_a_consumer_holds_is_given_back_uncounted_when_it_leaves() -> None:
    partition = loose("a", "b", ordered=True)
    desk = partition.desk
    partition.take(1)
    desk.leave(partition.hand, 0.0)
    desk.leave(partition.hand, 0.0)
    assert desk.take(partition.hand, 9, lease=LEASE, now=0.0) == ([], True)
    partition.hand = desk.join()
    taken = partition.take()
    assert (ids(taken), [one.crashes for one in taken]) == ([0, 1], [0, 0])


def test_a_key_stays_with_the_consumer_that_has_it() -> None:
    partition = loose("a", "a", "b", ordered=True)
    partition.take(1)
    other = partition.desk.join()
    taken, _ = partition.desk.take(other, 9, lease=LEASE, now=0.0)
    assert ids(taken) == [2]


def test_a_paused_source_hands_out_nothing() -> None:
    partition = loose("a")
    partition.desk.is_paused = True
    assert partition.take() == []
    partition.desk.is_paused = False
    assert ids(partition.take()) == [0]


# Suspects


def waiting_window() -> Window:
    """A partition of which nothing is due."""
    other = loose("z")
    other.settle(other.take(), Release(after=60.0))
    return other.window


def test_a_suspect_without_order_comes_when_it_is_asked_for_alone() -> None:
    partition = loose("a", "b", "c")
    dying(partition, 1)
    partition.settle(partition.take(2))
    partition.take(1)
    partition.take_over()
    partition.records.append(record(3))
    partition.end = 4
    partition.read()
    assert ids(partition.take()) == [3]
    assert partition.desk.has_suspects
    partition.desk.windows = {OTHER: waiting_window(), **partition.desk.windows}
    [suspect] = partition.take(0)
    assert (ids([suspect]), suspect.crashes) == ([2], 2)
    assert partition.take(0) == []
    assert not partition.desk.has_suspects


def test_a_suspect_of_an_ordered_source_goes_alone_and_in_its_place() -> None:
    partition = loose("a", "b", ordered=True)
    partition.take(1)
    partition.take_over()
    partition.take(1)
    partition.take_over()
    assert not partition.desk.has_suspects
    [suspect] = partition.take()
    assert (ids([suspect]), suspect.crashes) == ([0], 2)
    partition.settle([suspect])
    assert ids(partition.take()) == [1]


def test_a_suspect_of_an_ordered_source_waits_for_what_is_out_before_it_and_beside_it() -> None:
    partition = loose("a", "b", "c", ordered=True)
    for _ in range(2):
        partition.settle(partition.take(1), Release())
        taken = partition.take()
        partition.settle([one for one in taken if ids([one]) != [1]], Release())
        partition.commit()
        partition.take_over()
    before = partition.take()
    assert ids(before) == [0]
    assert partition.take() == []
    partition.settle(before)
    [suspect] = partition.take()
    assert (ids([suspect]), suspect.crashes) == ([1], 2)
    partition.settle([suspect])
    assert ids(partition.take()) == [2]


def test_a_key_is_held_for_twenty_minutes_by_retries_and_then_its_head_is_dead() -> None:
    partition = loose("a", ordered=True)
    partition.now = 1_000.0
    for _ in range(2):
        partition.settle(partition.take(), Later(600.0))
        partition.now += 600.0
    [head] = partition.take()
    [move], _ = partition.desk.settle(partition.hand, [(head, Later(1.0, "busy"))], partition.now)
    assert isinstance(move.outcome, Dead)
    assert "held for 1200 s by retries, and the next one is beyond 1200 s: busy" in (
        move.outcome.reason
    )


# Partitions


def two_partitions() -> Partition:
    """A member with two of them, each with a message."""
    partition = loose("a")
    partition.desk.assign(OTHER, marks.decode(0, ""))
    moved = Record(*OTHER, 0, WALL - 9.0, b"b", b"{}", record(7, "b").headers)
    partition.desk.feed(OTHER, [partition.desk.read(moved)], now=0.0, wall=WALL)
    return partition


def test_the_partition_whose_first_has_waited_longest_goes_first() -> None:
    partition = two_partitions()
    assert ids(partition.take(1)) == [7]
    assert ids(partition.take(1)) == [0]


def test_what_is_out_of_a_lost_partition_is_lost() -> None:
    partition = two_partitions()
    taken = partition.take()
    partition.desk.drop([OTHER, OTHER])
    _, lost = partition.desk.settle(partition.hand, [(one, DONE) for one in taken], 0.0)
    assert ids(lost) == [7]
    partition.desk.feed(OTHER, [partition.desk.read(record(8))], now=0.0, wall=WALL)
    partition.desk.passed(OTHER, 9)
    assert list(partition.desk.windows) == [PLACE]


def test_what_nobody_settled_in_time_is_a_crash_for_who_comes_next() -> None:
    partition = two_partitions()
    partition.take()
    partition.let_go()
    [again] = partition.take()
    assert again.crashes == 1


def test_letting_go_of_one_partition_leaves_the_other_alone() -> None:
    partition = two_partitions()
    taken = partition.take()
    partition.desk.drop([OTHER, ("orders", 9)])
    _, lost = partition.desk.settle(partition.hand, [(one, DONE) for one in taken], 0.0)
    assert ids(lost) == [7]


# Looking


def test_what_is_ready_out_and_delayed_is_counted() -> None:
    partition = loose("a", "a", "b", "c", ordered=True)
    windows = partition.desk.windows.values()
    assert shelved.counted([], 0.0) == shelved.Counts()
    counts = shelved.counted(windows, 0.0)
    assert (counts.ready, counts.leased, counts.delayed, counts.oldest) == (4, 0, 0, WALL)
    taken = partition.take()
    partition.settle(taken[:1], Later(5.0))
    counts = shelved.counted(windows, 0.0)
    assert (counts.ready, counts.leased, counts.delayed) == (0, 3, 1)
    partition.settle(one for one in taken if ids([one]) in ([1], [3]))
    counts = shelved.counted(windows, 0.0)
    assert (counts.leased, counts.delayed) == (1, 1)


def test_what_waits_behind_a_held_head_is_delayed_with_it() -> None:
    partition = loose("a", "b", "a", ordered=True)
    partition.settle(partition.take(1), Later(5.0))
    items = partition.window.open
    assert [shelved.is_delayed(items[at], 0.0) for at in (0, 1, 2)] == [True, False, True]
    assert not shelved.is_delayed(items[0], 5.0)


def test_a_record_of_a_retry_topic_waits_until_it_is_due() -> None:
    desk, place = Desk(Source("orders", "billing")), ("orders.billing.retry.10s", 0)
    hand = desk.join()
    desk.assign(place, marks.decode(0, ""))
    headers = wire.put_off(record(0, "a"), {}, round=2, due=WALL + 10.0)
    late = Record(*place, 0, WALL, b"a", b"{}", headers)
    desk.feed(place, [desk.read(late)], now=0.0, wall=WALL)
    assert desk.take(hand, 9, lease=LEASE, now=9.9) == ([], True)
    [counts] = [shelved.counted(desk.windows.values(), 9.9)]
    assert (counts.ready, counts.delayed) == (0, 1)
    [taken], _ = desk.take(hand, 9, lease=LEASE, now=10.1)
    assert (taken.message.id, taken.round) == ("0", 2)
