"""What waits for a group comes out in its order, and a shelf says what it has."""

from __future__ import annotations

import itertools

from callcast.core.message import Message
from callcast.policies.shelves import SUSPECT_CRASHES, Entry, Lanes, Owner, Pile


def an_entry(seq: int, *, key: str | None = None, due: float = 0.0, crashes: int = 0) -> Entry:
    message = Message(f"m{seq}", "test", "orders.placed", "orders.placed", b"{}", key)
    return Entry(seq=seq, place=seq, message=message, since=0.0, due=due, crashes=crashes)


def taken(pile: Pile, limit: int) -> list[int]:
    return [entry.seq for entry in pile.several(limit)]


def test_a_pile_hands_out_what_came_back_first_and_suspects_only_one_by_one() -> None:
    pile, owner = Pile(), Owner()
    assert taken(pile, 9) == []
    assert not pile.has_suspects

    pile.put_back(an_entry(2, crashes=SUSPECT_CRASHES), now=0.0)
    assert pile.has_suspects
    assert taken(pile, 9) == []

    pile.add(an_entry(3), now=0.0)
    pile.add(an_entry(4), now=0.0)
    pile.put_back(an_entry(1, crashes=SUSPECT_CRASHES - 1), now=0.0)
    assert taken(pile, 0) == []
    assert taken(pile, 2) == [1, 3]
    assert taken(pile, 9) == [4]
    suspect = pile.next(owner, 0.0)
    assert suspect is not None
    assert suspect.seq == 2
    assert not pile.has_suspects


def test_a_pile_has_what_was_put_off_once_it_is_due() -> None:
    pile = Pile()
    pile.add(an_entry(1, due=5.0), now=0.0)
    pile.tick(4.9)
    assert taken(pile, 9) == []
    pile.tick(5.0)
    assert taken(pile, 9) == [1]


def test_what_was_put_off_before_holds_its_lane_until_it_is_due() -> None:
    lanes, owner = Lanes(itertools.count()), Owner()
    lanes.hold(an_entry(1, key="a", due=5.0), now=0.0)
    lanes.add(an_entry(2, key="a"), now=0.0)
    lanes.add(an_entry(3, key="b"), now=0.0)

    other = lanes.next(owner, 0.0)
    assert other is not None
    assert other.seq == 3
    assert lanes.next(owner, 0.0) is None

    lanes.tick(5.0)
    first = lanes.next(owner, 5.0)
    assert first is not None
    assert first.seq == 1
