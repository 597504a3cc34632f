"""How long a key is held on Kafka, and what holds when a settle is interrupted."""

from __future__ import annotations

from kafka_parts import LEASE, Partition, ids, record

from callcast.brokers.kafka.desk import HOLD_MAX
from callcast.core.outcome import Dead, Later


def held(*keys: str) -> Partition:
    """An ordered partition with one message for each key."""
    return Partition([record(at, key) for at, key in enumerate(keys)], len(keys), ordered=True)


def test_retries_hold_a_key_for_twenty_minutes_in_all_then_it_is_dead() -> None:
    partition = held("a", "a")
    partition.now = 1_000.0
    for round_ in range(2):
        [first] = partition.take(1)
        assert (first.message.id, first.round) == ("0", round_)
        partition.settle([first], Later(HOLD_MAX / 2, "still away"))
        partition.now += HOLD_MAX / 2
    [first] = partition.take(1)
    moves, lost = partition.desk.settle(
        partition.hand, [(first, Later(1.0, "still away"))], partition.now
    )
    assert lost == []
    [move] = moves
    assert isinstance(move.outcome, Dead)
    assert "its key was held for 1200 s by retries" in move.outcome.reason
    assert "still away" in move.outcome.reason


def test_a_verdict_that_was_interrupted_leaves_the_delivery_with_its_worker() -> None:
    partition = held("a")
    [one] = partition.take()
    [move], _ = partition.desk.settle(partition.hand, [(one, Dead("no"))], partition.now)
    assert partition.desk.moved(partition.hand, move, is_stored=False, now=partition.now)
    [move], lost = partition.desk.settle(partition.hand, [(one, Dead("no"))], partition.now)
    assert lost == []
    assert partition.desk.moved(partition.hand, move, is_stored=False, now=partition.now)
    partition.now += LEASE
    assert ids(partition.take()) == [0]  # and its lease ends as any other
