"""A partition that moves while something is out of it: who had it, and who waits for it."""

from __future__ import annotations

from kafka_parts import PLACE, Partition, ids, record

from callcast.brokers.kafka import marks
from callcast.brokers.kafka.heirs import LOOK, PATIENCE, Heirs
from callcast.brokers.kafka.marks import SETTLED, TEXT_MAX, Mark, Run
from callcast.brokers.kafka.window import SILENCE, TELL
from callcast.core.outcome import DONE, Later

SERVER_MAX = 4_096


def a_partition(count: int = 3) -> Partition:
    """So many messages, each of a key of its own."""
    return Partition([record(offset, str(offset)) for offset in range(count)], count)


# Who had it


def test_nothing_more_is_handed_out_and_what_is_out_is_settled_as_ever() -> None:
    partition = a_partition()
    taken = partition.take(2)
    partition.hand_on()
    assert partition.take() == []
    assert partition.metadata == "c1 0 2o,h1"
    partition.settle(taken)
    partition.finish()
    assert (partition.offset, partition.metadata) == (2, "")
    partition.take_over()
    assert [(one.message.id, one.crashes) for one in partition.take()] == [("2", 0)]


def test_what_is_put_off_keeps_its_round_and_its_due_time_with_who_comes_next() -> None:
    partition = a_partition(1)
    taken = partition.take()
    partition.hand_on()
    partition.settle(taken, Later(100.0))
    partition.finish()
    partition.take_over()
    assert partition.take() == []
    partition.now += 101.0
    [again] = partition.take()
    assert (again.round, again.crashes) == (1, 0)


def test_it_is_said_again_and_again_while_something_is_out() -> None:
    partition = a_partition()
    partition.take(1)
    partition.hand_on()
    assert partition.desk.plans(partition.now) == []
    for word in ("h2", "h3", "h4"):
        partition.now += TELL
        partition.finish()
        assert partition.metadata == f"c1 0 1o,{word}"


def test_once_it_is_through_it_commits_nothing_more() -> None:
    """It is another member's now, whose commits it would undo."""
    partition = a_partition()
    partition.hand_on()
    assert (partition.offset, partition.metadata) == (0, "")
    partition.now += TELL
    assert partition.desk.plans(partition.now) == []
    partition.desk.tick(partition.now)
    assert not partition.desk.handed_on


def test_who_is_not_heard_gives_up_before_anybody_else_begins() -> None:
    partition = a_partition()
    taken = partition.take(1)
    partition.hand_on()
    partition.now += SILENCE
    assert SILENCE < PATIENCE
    _, lost = partition.desk.settle(partition.hand, [(one, DONE) for one in taken], partition.now)
    assert lost == taken
    assert not partition.desk.handed_on


def test_what_is_out_for_too_long_is_a_crash_and_the_others_are_none() -> None:
    partition = a_partition()
    partition.take(1)
    partition.hand_on(1.0)
    partition.now += 1.0
    partition.desk.tick(partition.now)
    partition.finish()
    assert partition.metadata == "c1 0 1c1"
    partition.take_over()
    assert [one.crashes for one in partition.take()] == [1, 0, 0]


def test_a_death_while_it_is_finished_counts_what_was_out_and_nothing_else() -> None:
    partition = a_partition()
    partition.settle(partition.take(2)[1:])
    partition.hand_on()
    partition.take_over()
    taken = partition.take()
    assert ids(taken) == [0, 2]
    assert [one.crashes for one in taken] == [1, 0]
    partition.commit()
    assert "h" not in partition.metadata


# What is written


def test_the_word_stands_last_and_always_fits() -> None:
    assert marks.encode(0, [], handed_on=7) == "c1 0 h7"
    assert marks.encode(0, [Run(2, SETTLED)], handed_on=7) == "c1 0 2s,h7"
    many = [Run(1, Mark(crashes=1 + at % 2)) for at in range(3_000)]
    text = marks.encode(0, many, handed_on=999_999_999)
    assert TEXT_MAX - 10 < len(text) < SERVER_MAX
    assert marks.decode(0, text).handed_on == 999_999_999
    assert marks.decode(0, text).at(1).crashes == 2
    assert marks.decode(0, "c1 0 2s").handed_on == 0


# Who waits for it


def test_an_heir_begins_at_once_where_nothing_is_out() -> None:
    heirs = Heirs()
    assert heirs.may_begin(PLACE, (5, 0), 0.0)
    assert heirs.to_look_at(100.0) == []


def test_an_heir_waits_while_there_is_another_word_each_time() -> None:
    heirs = Heirs()
    now = 0.0
    for word in range(1, 30):
        assert not heirs.may_begin(PLACE, (5, word), now)
        assert heirs.to_look_at(now) == [PLACE]
        assert heirs.to_look_at(now + LOOK / 2) == []
        now += TELL
    assert heirs.may_begin(PLACE, (6, 0), now)
    assert heirs.to_look_at(now) == []


def test_an_heir_begins_when_it_has_heard_nothing_new_for_long_enough() -> None:
    heirs = Heirs()
    assert not heirs.may_begin(PLACE, (5, 1), 100.0)
    assert not heirs.may_begin(PLACE, (5, 2), 101.0)
    assert not heirs.may_begin(PLACE, (5, 2), 100.9 + PATIENCE)
    assert heirs.may_begin(PLACE, (5, 2), 101.0 + PATIENCE)
    assert not heirs.may_begin(PLACE, (5, 2), 200.0), "each heir waits for itself"
