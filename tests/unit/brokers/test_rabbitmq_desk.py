"""What one process has of a group on RabbitMQ: who gets it, and with whom."""

from __future__ import annotations

from callcast.brokers.rabbitmq.desk import Desk, Hand, Stub
from callcast.brokers.rabbitmq.wire import Arrived
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.policies.shelves import SUSPECT_CRASHES

SUSPECT = SUSPECT_CRASHES


def a_desk(*arrivals: tuple[str, str, int], ordered: bool = True) -> tuple[Desk, Hand]:
    """A desk at which these have arrived: name, key, crashes."""
    desk, hand = Desk(ordered=ordered), Hand(60.0)
    desk.join(hand)
    for tag, (name, key, crashes) in enumerate(arrivals, 1):
        message = Message(name, "test", "orders.placed", "orders.placed", b"{}", key)
        desk.arrive(Arrived(message), Stub(tag, "queue", 1, crashes), 0.0)
    return desk, hand


def names(desk: Desk, hand: Hand, now: float = 1.0) -> list[str]:
    """What one fetch gets; it is done at once."""
    taken = desk.take(hand, 10, now)
    desk.settle(hand, [(each, DONE) for each in taken], now)
    return [each.message.id for each in taken]


def test_a_suspect_does_not_overtake_what_stands_before_it_of_its_key() -> None:
    desk, hand = a_desk(("1", "a", 0), ("2", "a", 0), ("3", "a", SUSPECT), ("4", "a", 0))
    assert [names(desk, hand) for _ in range(3)] == [["1", "2"], ["3"], ["4"]]


def test_a_suspect_of_an_ordered_group_goes_out_alone() -> None:
    desk, hand = a_desk(("1", "a", SUSPECT), ("2", "b", SUSPECT), ("3", "c", 0))
    assert [names(desk, hand) for _ in range(3)] == [["1"], ["2"], ["3"]]


def test_it_stays_in_its_place_while_those_before_it_run() -> None:
    desk, hand = a_desk(("1", "a", 0), ("2", "a", SUSPECT), ("3", "a", 0))
    first = desk.take(hand, 10, 1.0)
    second = desk.take(hand, 10, 1.0)
    assert [each.message.id for each in (*first, *second)] == ["1", "2"]
    assert desk.leased == 2


def test_without_order_suspects_come_last() -> None:
    desk, hand = a_desk(("1", "a", SUSPECT), ("2", "b", 0), ordered=False)
    assert names(desk, hand) == ["2", "1"]
