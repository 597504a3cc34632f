"""The order of keys: lines, busy keys, suspects, parked letters."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlite_bench import Table, ids, message

from callcast.brokers.sqlite import catalog, look
from callcast.brokers.sqlite.pick import SCAN_MAX
from callcast.brokers.sqlite.records import QUICK_MAX, Hand
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Part


@pytest.fixture
def lines(tmp_path: Path) -> Generator[Table]:
    table = Table(tmp_path, ordered=True)
    yield table
    table.close()


# Lines


def test_a_key_that_is_alone_stays_in_the_log(lines: Table) -> None:
    lines.send(*(f"a{n}" for n in range(30)), key="a")
    worker, other = lines.join(), lines.join()
    assert ids(lines.fetch(worker)) == [f"a{n}" for n in range(8)]  # unknown keys count as slow
    assert lines.fetch(worker) == []
    assert lines.fetch(other) == []
    assert lines.count("held") == 0


def test_a_key_that_shows_to_be_fast_leaves_without_bound(lines: Table) -> None:
    lines.send(*(f"a{n}" for n in range(30)), key="a")
    worker = lines.join()
    lines.rule(worker, lines.fetch(worker), DONE)
    assert len(lines.fetch(worker)) == 22


def test_a_key_that_shows_to_be_slow_has_eight_out(lines: Table) -> None:
    lines.send(*(f"a{n}" for n in range(30)), key="a")
    worker = lines.join()
    taken = lines.fetch(worker)
    lines.pass_time(0.021)
    lines.rule(worker, taken[:1], DONE)
    assert ids(lines.fetch(worker)) == ["a8"]


def test_a_busy_key_is_passed_by_others(lines: Table) -> None:
    lines.send(*(f"a{n}" for n in range(20)), key="a")
    lines.send("b0", key="b")
    lines.send("a20", key="a")
    worker = lines.join()
    taken = lines.fetch(worker)
    assert ids(taken) == [*(f"a{n}" for n in range(8)), "b0"]
    assert lines.count("held") == 12
    lines.rule(worker, taken, DONE)  # fast
    rest = lines.fetch(worker)
    assert ids(rest) == [f"a{n}" for n in range(8, 20)]
    lines.rule(worker, rest, DONE)
    assert ids(lines.fetch(worker)) == ["a20"]


def test_a_long_backlog_of_a_busy_key_is_moved_out_of_the_way(lines: Table) -> None:
    count = SCAN_MAX * 2
    for start in range(0, count, 64):
        lines.send(*(f"a{n}" for n in range(start, start + 64)), key="a")
    lines.send("b0", key="b")
    worker = lines.join()
    assert len(lines.fetch(worker)) == 8
    assert ids(lines.fetch(worker)) == ["b0"]
    assert lines.count("held") == count - 8


def test_a_suspect_of_a_key_leaves_alone(lines: Table) -> None:
    lines.send("a1", "a2", "a3", key="a")
    for _ in range(2):
        lines.fetch(lines.join(lease=1.0))
        lines.pass_time(2.0)
    worker = lines.join()
    for name in ("a1", "a2", "a3"):
        [only] = lines.fetch(worker)
        assert (only.message.id, only.crashes) == (name, 2)
        lines.rule(worker, [only], DONE)


def test_a_head_stops_in_front_of_a_suspect(lines: Table) -> None:
    lines.send("a1", "a2", key="a")
    worker = lines.join()
    first, second = lines.fetch(worker)
    lines.rule(worker, [first], Release())
    lines.leave(worker)
    lines.cx.execute("update held set crashes = 2 where seq = 2")
    assert ids(lines.fetch(worker)) == ["a1"]
    assert second.message.id == "a2"


def test_messages_without_a_key_have_no_order(lines: Table) -> None:
    lines.send("x", "y")
    worker, other = lines.join(), lines.join()
    x, y = lines.fetch(worker)
    lines.settle(worker, [(x, Later(10.0)), (y, Dead("why", park=True))])
    lines.send("z")
    assert ids(lines.fetch(other)) == ["z"]
    assert lines.count("queue") == 0
    lines.pass_time(10.0)
    assert ids(lines.fetch(other)) == ["x"]


def test_suspects_without_a_key_come_last_in_an_ordered_group_too(lines: Table) -> None:
    lines.send("x")
    for _ in range(2):
        lines.fetch(lines.join(lease=1.0))
        lines.pass_time(2.0)
    lines.send("y")
    assert ids(lines.fetch(lines.join())) == ["y", "x"]


def test_a_fetch_takes_no_more_of_what_is_held_than_it_asked_for(lines: Table) -> None:
    for key in "abc":
        lines.send(f"{key}1", f"{key}2", key=key)
    worker = lines.join()
    lines.rule(worker, lines.fetch(worker), Release())
    taken = lines.fetch(worker, 3)
    assert len(taken) == 3
    taken += lines.fetch(worker, 1)
    assert len(taken) == 4
    lines.send("x")
    lines.rule(worker, lines.fetch(worker, 1), Release())
    assert len(lines.fetch(worker, 1)) == 1


def test_the_quick_keys_that_are_remembered_are_bounded(lines: Table) -> None:
    hand: Hand = lines.join()
    for number in range(QUICK_MAX + 10):
        hand.pace(f"k{number}", 1)
    assert len(hand.quick) == QUICK_MAX
    assert hand.room("k0", 0) == 8
    assert hand.room("k20", 100) is None


def test_a_scheduled_message_joins_its_key_when_it_is_due(lines: Table) -> None:
    due = lines.manual.wall() + 5.0
    assert not any(lines.publish(message("timeout", key="a", deliver_at=due)))
    worker = lines.join()
    lines.send("a1", key="a")
    [first] = lines.fetch(worker)
    lines.pass_time(5.0)
    assert lines.fetch(worker) == []  # it waits for the first one of its key
    lines.rule(worker, [first], DONE)
    assert ids(lines.fetch(worker)) == ["timeout"]


def test_a_scheduled_message_is_seen_in_each_group(tmp_path: Path) -> None:
    table = Table(tmp_path, groups=("g", "h"))
    due = table.manual.wall() + 5.0
    table.publish(message("m", deliver_at=due))
    table.publish(message("n", group="h", deliver_at=due))
    one, other = (table.join(group=group) for group in table.groups)
    hidden = [table.fetch(hand) for hand in (one, other)]
    assert hidden == [[], []]
    assert [table.lag(group).delayed for group in table.groups] == [1, 2]
    table.pass_time(5.0)
    assert [ids(table.fetch(hand)) for hand in (one, other)] == [["m"], ["m", "n"]]
    table.close()


# Parking


def test_of_several_parked_letters_the_first_holds_the_key(lines: Table) -> None:
    lines.send("a1", "a2", "a3", key="a")
    worker = lines.join()
    first, second, _ = lines.fetch(worker)
    lines.settle(worker, [(first, Dead("x", park=True)), (second, Dead("x", park=True))])
    lines.leave(worker)
    lines.publish(message("a2", key="a", group="g"))
    assert lines.fetch(worker) == []  # a1 still holds
    lines.publish(message("a1", key="a", group="g"))
    assert ids(lines.fetch(worker)) == ["a1", "a2", "a3"]


def test_a_message_for_a_group_with_a_parked_key_waits_behind(lines: Table) -> None:
    lines.send("a1", key="a")
    worker = lines.join()
    lines.rule(worker, lines.fetch(worker), Dead("x", park=True))
    lines.publish(message("a9", key="a", group="g"))
    assert lines.fetch(worker) == []
    group = lines.groups[0]
    assert look.held_behind(lines.cx, group, "a") == 1
    assert look.held_behind(lines.cx, group, "b") == 0
    lines.run(lambda cx: catalog.unpark(cx, group, "a"))
    assert ids(lines.fetch(worker)) == ["a9"]
    assert lines.lag().dead == 1


def test_discarding_a_parked_letter_lets_its_key_go_on(lines: Table) -> None:
    lines.send("a1", "a2", key="a")
    worker = lines.join()
    [first] = lines.fetch(worker, 1)
    lines.rule(worker, [first], Dead("x", park=True))
    letters = lines.join(part=Part.DEAD)
    lines.rule(letters, lines.fetch(letters), DONE)
    assert ids(lines.fetch(worker)) == ["a2"]
