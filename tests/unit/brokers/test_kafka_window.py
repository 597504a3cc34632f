"""A partition's commits: never past what is unsettled, and what their metadata saves from a death."""

from __future__ import annotations

from itertools import accumulate
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_parts import PLACE, WALL, Partition, ids, record

from callcast.brokers.kafka import marks
from callcast.brokers.kafka.window import HORIZON, IDLE, SPAN_MAX
from callcast.brokers.kafka.wire import Record
from callcast.core.outcome import Later, Release
from callcast.ports.broker import Delivery


def keyless(count: int, first: int = 0) -> list[Record]:
    """So many records without a key."""
    return [record(offset) for offset in range(first, first + count)]


def a_partition(dice: Random) -> Partition:
    """Some records, with holes between and behind them, ordered or not."""
    offsets = list(accumulate(dice.randrange(1, 4) for _ in range(dice.randrange(1, 20))))
    records = [record(offset, dice.choice([None, None, "a", "b"])) for offset in offsets]
    end = offsets[-1] + dice.randrange(1, 5)
    return Partition(records, end, ordered=dice.random() < 0.5)


@settings(deadline=None)
@given(st.integers(0))
def test_commits_never_pass_what_is_not_settled_and_reach_the_end_when_all_is(seed: int) -> None:
    """Whatever is handed out when, and settled in whatever order; with holes in the log."""
    dice = Random(seed)
    partition = a_partition(dice)
    open_ = {one.offset for one in partition.records}
    out: list[Delivery] = []
    while open_:
        out += partition.take(dice.randrange(5))
        partition.now += dice.choice([0.0, 0.1, IDLE])
        some = [one for one in out if dice.random() < 0.5]
        out = [one for one in out if one not in some]
        if dice.random() < 0.7:
            partition.settle(some)
            open_ -= set(ids(some))
        else:
            partition.settle(some, Release())
        partition.commit()
        assert partition.offset <= min(open_, default=partition.end)
        for offset in open_:
            assert not marks.decode(partition.offset, partition.metadata).at(offset).is_settled
    partition.now += IDLE
    partition.commit()
    assert (partition.offset, partition.metadata) == (partition.end, "")


@settings(deadline=None)
@given(st.integers(0))
def test_a_death_loses_nothing_and_counts_what_was_out(seed: int) -> None:
    """Members die again and again, some before they have read; the last one gets what is left."""
    dice = Random(seed)
    partition = a_partition(dice)
    open_ = {one.offset for one in partition.records}
    crashes = dict.fromkeys(open_, 0)
    for _ in range(dice.randrange(1, 6)):
        taken = partition.take(dice.randrange(5))
        assert all(one.crashes >= crashes[int(one.message.id)] for one in taken)
        done = [one for one in taken if dice.random() < 0.5]
        partition.settle(done)
        open_ -= set(ids(done))
        if taken:
            partition.commit()
        for offset in set(ids(taken)) & open_:
            crashes[offset] += 1
        partition.take_over(read=dice.choice([0, 1, 3, None]))
        if dice.random() < 0.5:
            partition.commit()
    partition.read()
    found = partition.window.open
    assert set(found) == open_
    assert all(item.crashes >= crashes[offset] for offset, item in found.items())


def test_what_is_settled_beyond_a_gap_does_not_come_again_after_a_death() -> None:
    partition = Partition(keyless(10), 10)
    taken = partition.take()
    partition.settle(one for one in taken if int(one.message.id) not in {2, 7})
    partition.commit()
    assert partition.offset == 2
    partition.take_over()
    assert ids(partition.take()) == [2, 7]


def test_holes_and_markers_are_passed() -> None:
    """What was compacted away and the markers of transactions have offsets and no records."""
    partition = Partition([record(3), record(9)], 12)
    partition.settle(partition.take())
    partition.commit()
    assert partition.offset == 12
    partition = Partition([], 5)
    partition.commit()
    assert partition.offset == 5


def test_what_was_read_before_is_not_taken_in_twice() -> None:
    partition = Partition(keyless(3), 3)
    partition.desk.feed(PLACE, map(partition.desk.read, keyless(3)), now=0.0, wall=WALL)
    assert ids(partition.take()) == [0, 1, 2]
    assert partition.take() == []


def test_only_what_is_near_the_first_unsettled_one_is_handed_out() -> None:
    partition = Partition(keyless(SPAN_MAX + 5), SPAN_MAX + 5, ordered=False)
    taken = partition.take(5_000)
    assert len(taken) == SPAN_MAX
    partition.settle(taken[1:])
    assert partition.take() == []
    partition.settle(taken[:1])
    assert ids(partition.take()) == list(range(SPAN_MAX, SPAN_MAX + 5))


# Crashes


def test_all_that_may_have_been_out_is_counted_when_its_member_dies() -> None:
    partition = Partition(keyless(4), 4)
    partition.take(2)
    partition.take_over()
    assert [one.crashes for one in partition.take()] == [1, 1, 1, 1]


def test_from_the_first_crash_on_neighbours_are_not_counted() -> None:
    partition = Partition(keyless(4), 4, ordered=False)
    partition.take(4)
    partition.take_over()
    partition.settle(partition.take(1))
    partition.take(1)
    partition.take_over()
    found = {offset: item.crashes for offset, item in partition.window.open.items()}
    assert found == {1: 2, 2: 1, 3: 1}


def test_nothing_is_a_crash_that_was_let_go_in_good_order() -> None:
    partition = Partition(keyless(2), 2)
    partition.settle(partition.take(1))
    partition.let_go()
    assert [one.crashes for one in partition.take()] == [0]


def test_nothing_is_a_crash_when_nothing_was_out_for_a_while() -> None:
    partition = Partition(keyless(3), 3)
    partition.settle(partition.take(1))
    partition.commit()
    assert partition.metadata == f"c1 {HORIZON} "
    partition.now += IDLE
    partition.commit()
    assert partition.metadata == ""
    partition.take_over()
    assert [one.crashes for one in partition.take()] == [0, 0]


def test_what_was_published_after_a_death_did_not_die_of_it() -> None:
    """A horizon reaches beyond the end of the log, where nothing can have been out."""
    partition = Partition(keyless(2), 2)
    partition.take()
    partition.take_over()
    partition.records += keyless(3, first=2)
    partition.end = 5
    partition.read()
    assert [one.crashes for one in partition.take()] == [1, 1, 0, 0, 0]


def test_a_fetch_after_a_death_soon_needs_no_commit_of_its_own_again() -> None:
    partition = Partition(keyless(2), 2)
    partition.take()
    partition.take_over()
    partition.settle(partition.take())
    partition.commit()
    partition.records += keyless(40, first=2)
    partition.end = 42
    partition.read()
    partition.take(1)
    taken, is_durable = partition.desk.take(partition.hand, 30, lease=60.0, now=partition.now)
    assert (len(taken), is_durable) == (30, True)


# What nobody has read yet


@pytest.mark.parametrize("moves", [1, 3])
def test_what_is_noted_survives_members_that_never_came_to_read_it(moves: int) -> None:
    """Two deaths, or two rebalances, shortly after one another."""
    partition = Partition([record(at, str(at)) for at in range(5)], 5)
    taken = partition.take()
    partition.settle(taken[:1], Later(100.0))
    partition.settle(taken[2:3])
    partition.commit()
    partition.take_over(read=0)
    for _ in range(moves):
        partition.commit()
        partition.take_over(read=0)
    partition.read(1)
    partition.commit()
    partition.take_over(read=0)
    partition.let_go()
    found = partition.window.open
    assert sorted(found) == [0, 1, 3, 4]
    assert [found[at].crashes for at in (0, 1, 3, 4)] == [0, 1, 1, 1]
    assert (found[0].round, found[0].due_wall) == (1, WALL + 100.0)
    assert ids(partition.take()) == [1, 3, 4]


# Held heads


def test_a_held_head_keeps_its_round_and_its_time_across_a_death() -> None:
    partition = Partition([record(0, "a"), record(1, "a"), record(2, "b")], 3)
    partition.settle(partition.take(1), Later(30.0))
    partition.commit()
    partition.take_over()
    assert ids(partition.take()) == [2]
    partition.now += 29.8
    assert partition.take() == []
    partition.now += 0.3
    [head, behind] = partition.take()
    assert (head.round, ids([head, behind])) == (1, [0, 1])


def test_three_hundred_held_heads_are_held_after_a_death() -> None:
    count = 300
    records = [record(at, str(at)) for at in range(2 * count)]
    partition = Partition(records, 2 * count)
    for delivery in partition.take():
        at = int(delivery.message.id)
        partition.settle([delivery], Later(60.0 + (at * 37) % 1_100) if at % 2 else Release())
    partition.settle(partition.take())
    partition.commit()
    assert len(partition.metadata.encode()) <= 4_096
    partition.now += 59.0
    partition.take_over()
    assert partition.take() == []
    assert len(partition.window.open) == count
    assert {item.round for item in partition.window.open.values()} == {1}
    partition.now += 1_200.0
    assert len(partition.take()) == count


# Refused commits


def test_what_a_refused_commit_was_to_say_goes_with_the_next() -> None:
    partition = Partition(keyless(2), 2)
    partition.settle(partition.take())
    [plan] = partition.desk.plans(partition.now)
    plan.window.failed()
    partition.commit()
    assert partition.offset == 2


def test_while_a_commit_takes_the_horizon_back_nothing_counts_on_it() -> None:
    partition = Partition(keyless(3), 3)
    partition.settle(partition.take(1))
    partition.commit()
    partition.now += IDLE
    [plan] = partition.desk.plans(partition.now)
    _, is_durable = partition.desk.take(partition.hand, 1, lease=60.0, now=partition.now)
    assert not is_durable
    plan.window.committed(plan)
    partition.offset, partition.metadata = plan.offset, plan.metadata
    partition.commit()
    partition.take_over()
    assert [one.crashes for one in partition.take()] == [1, 1]


def test_a_window_is_named_after_its_partition() -> None:
    assert repr(Partition([], 0).window) == "orders/0"
