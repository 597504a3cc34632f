"""Leases, and the parts of a group that no worker gets."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlite_bench import Table, ids

from callcast.brokers.sqlite import reap
from callcast.brokers.sqlite.schema import BUSY
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Part


@pytest.fixture
def pile(tmp_path: Path) -> Generator[Table]:
    table = Table(tmp_path)
    yield table
    table.close()


@pytest.fixture
def lines(tmp_path: Path) -> Generator[Table]:
    table = Table(tmp_path, ordered=True)
    yield table
    table.close()


# Leases


def test_a_fetch_writes_one_lease_row_whatever_it_hands_out(pile: Table) -> None:
    pile.send(*(f"m{n}" for n in range(50)))
    hand = pile.join()
    taken = pile.fetch(hand)
    assert pile.count("lease") == 1
    assert pile.count("held") == 0
    pile.rule(hand, taken, DONE)
    assert pile.count("lease") == 0
    assert hand.blocks == {}


def test_two_settles_of_one_transaction_see_each_other(pile: Table) -> None:
    from callcast.brokers.sqlite import settle

    pile.send("a", "b", "c")
    hand = pile.join()
    a, b, c = pile.fetch(hand)
    now = pile.clock.now()

    def both(cx: object) -> tuple[settle.Settled, ...]:
        turn = pile.turn(pile.cx)
        return (
            settle.settle(turn, hand, [(a, DONE)]),
            settle.settle(turn, hand, [(b, DONE), (a, DONE)]),
            settle.settle(turn, hand, [(a, DONE), (b, DONE), (c, DONE)]),
        )

    first, second, third = pile.run(both)
    assert [len(one.done) for one in (first, second, third)] == [1, 1, 1]
    assert second.lost == [a]
    assert third.lost == [a, b]
    for result in (first, second, third):
        settle.settled(hand, result, now)
    assert pile.count("lease") == 0
    assert hand.blocks == {}


def test_a_stale_settle_of_a_whole_lease_does_not_end_what_is_left_of_it(pile: Table) -> None:
    pile.send("a", "b")
    hand = pile.join()
    a, b = pile.fetch(hand)
    pile.rule(hand, [a], DONE)
    assert pile.rule(hand, [a], DONE).lost == [a]
    assert pile.count("lease") == 1
    assert not pile.rule(hand, [b], DONE).lost


def test_the_second_verdict_of_one_call_is_lost(pile: Table) -> None:
    pile.send("a")
    hand = pile.join()
    [a] = pile.fetch(hand)
    assert pile.settle(hand, [(a, DONE), (a, Later(1.0))]).lost == [a]
    assert pile.count("held") == 0


def test_renewing_part_of_a_lease_parts_it(pile: Table) -> None:
    pile.send("a")
    hand = pile.join(lease=10.0)
    pile.rule(hand, pile.fetch(hand), Release())
    pile.send("b", "c", "d")
    a, b, c, d = pile.fetch(hand)  # one held, three of the log
    pile.pass_time(6.0)
    pile.renew(hand, [a, c])
    assert pile.count("lease") == 2
    assert sorted(len(block.open) for block in hand.blocks.values()) == [2, 2]
    pile.pass_time(6.0)
    pile.reap()
    result = pile.settle(hand, [(a, DONE), (b, DONE), (c, DONE), (d, DONE)])
    assert result.lost == [b, d]
    assert hand.blocks == {}
    assert sorted(ids(pile.fetch(pile.join()))) == ["b", "d"]


def test_renewing_what_is_lost_changes_nothing(pile: Table) -> None:
    pile.send("a", "b")
    hand = pile.join(lease=10.0)
    taken = pile.fetch(hand)
    pile.pass_time(11.0)
    pile.reap()
    pile.renew(hand, taken)
    pile.renew(hand, taken[:1])
    assert pile.count("lease") == 0


def test_an_idle_fetch_forgets_the_leases_that_are_lost(pile: Table) -> None:
    pile.send("a")
    hand = pile.join(lease=10.0)
    [a] = pile.fetch(hand)
    pile.pass_time(11.0)
    other = pile.join()
    pile.rule(other, pile.fetch(other), DONE)
    assert pile.fetch(hand) == []
    assert hand.blocks == {}
    assert pile.rule(hand, [a], DONE).lost == [a]


def test_closing_gives_back_uncounted_what_the_file_says_is_out(pile: Table) -> None:
    pile.send("a", "b")
    hand = pile.join()
    pile.rule(hand, pile.fetch(hand, 1), Release())
    pile.fetch(hand)
    hand.blocks.clear()  # a fetch whose answer has not come yet
    pile.leave(hand)
    back = pile.fetch(pile.join())
    assert sorted(ids(back)) == ["a", "b"]
    assert [one.crashes for one in back] == [0, 0]


def test_the_messages_of_a_dead_instance_are_free_whatever_their_lease(pile: Table) -> None:
    pile.send("a")
    hand = pile.join(lease=600.0)
    pile.fetch(hand)
    assert pile.run(lambda cx: reap.of_dead(pile.turn(cx), "nobody")) == []
    assert pile.run(lambda cx: reap.of_dead(pile.turn(cx), "me")) == [pile.groups[0].topic]
    assert [one.crashes for one in pile.fetch(pile.join())] == [1]


def test_a_closed_hand_gets_nothing(pile: Table) -> None:
    pile.send("a")
    hand = pile.join()
    hand.is_closed = True
    assert pile.fetch(hand) == []


# Delayed and dead parts


def test_what_is_delayed_can_be_taken_out_or_given_back(pile: Table) -> None:
    pile.send("a", "b")
    worker = pile.join()
    pile.rule(worker, pile.fetch(worker), Later(100.0))
    aside = pile.join(part=Part.DELAYED)
    a, b = pile.fetch(aside)
    pile.settle(aside, [(a, DONE), (b, Release())])
    assert pile.fetch(worker) == []
    pile.pass_time(100.0)
    [b] = pile.fetch(worker)
    assert (b.message.id, b.round) == ("b", 1)


def test_what_was_delayed_keeps_its_time_when_its_reader_dies(pile: Table) -> None:
    pile.send("a")
    worker = pile.join()
    pile.rule(worker, pile.fetch(worker), Later(100.0))
    pile.fetch(pile.join(part=Part.DELAYED, lease=10.0))
    pile.pass_time(11.0)
    pile.reap()
    assert pile.fetch(worker) == []
    pile.pass_time(90.0)
    assert ids(pile.fetch(worker)) == ["a"]


def test_taking_out_a_delayed_head_lets_its_key_go_on(lines: Table) -> None:
    lines.send("a1", "a2", key="a")
    worker = lines.join()
    [first] = lines.fetch(worker, 1)
    lines.rule(worker, [first], Later(100.0))
    aside = lines.join(part=Part.DELAYED)
    taken = lines.fetch(aside)
    assert lines.cx.execute("select due from queue").fetchall() == [(BUSY,)]
    lines.rule(aside, taken, DONE)
    assert ids(lines.fetch(worker)) == ["a2"]


def test_a_dead_letter_put_off_hides_for_that_time(pile: Table) -> None:
    pile.send("a")
    worker = pile.join()
    pile.rule(worker, pile.fetch(worker), Dead("first"))
    letters = pile.join(part=Part.DEAD)
    pile.rule(letters, pile.fetch(letters), Later(10.0))
    assert pile.fetch(letters) == []
    pile.pass_time(10.0)
    pile.rule(letters, pile.fetch(letters), Dead("second"))
    [letter] = pile.fetch(letters)
    assert letter.message.headers["callcast-dead-reason"] == "second"
    assert pile.lag().dead == 1


def test_notes_are_written_onto_what_is_put_off(pile: Table) -> None:
    pile.send("a")
    worker = pile.join()
    for note in ("1", "2"):
        taken = pile.fetch(worker)
        pile.rule(worker, taken, Later(0.0, notes={"callcast-first-failed-at": note}))
    [a] = pile.fetch(worker)
    assert a.message.headers == {"callcast-first-failed-at": "2"}
    assert a.round == 2
