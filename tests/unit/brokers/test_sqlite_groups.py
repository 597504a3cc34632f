"""What happens in the file, one transaction at a time."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlite_bench import Table, ids, message

from callcast.brokers.sqlite import catalog, fetch, look, reap
from callcast.brokers.sqlite.dbclock import SECOND
from callcast.brokers.sqlite.look import Kept, Page
from callcast.brokers.sqlite.pick import SCAN_MAX
from callcast.brokers.sqlite.records import PACES_MAX, Hand
from callcast.brokers.sqlite.schema import BUSY
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Part, Source, Start


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


def test_the_paces_of_keys_are_bounded(lines: Table) -> None:
    hand: Hand = lines.join()
    for number in range(PACES_MAX + 10):
        hand.pace(f"k{number}", 1)
    assert len(hand.paces) == PACES_MAX
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


# Publishing


def test_what_cannot_be_encoded_is_refused(pile: Table) -> None:
    broken = [
        Message("a", "s", "t", "t", b"", headers={"x": "\ud800"}),
        Message("b", "s", "t", "t", b"", headers={"x": object()}),  # type: ignore[dict-item]
    ]
    errors = pile.publish(*broken, message("c"))
    assert [error is None for error in errors] == [False, False, True]
    assert ids(pile.fetch(pile.join())) == ["c"]


def test_a_batch_may_go_to_several_topics(pile: Table) -> None:
    elsewhere = Message("b", "test", "u", "u", b"")
    nowhere = Message("c", "test", "u", "u", b"", unheard=True)
    errors = pile.publish(message("a"), elsewhere, nowhere)
    assert [error is None for error in errors] == [True, False, True]


def test_what_nobody_hears_is_kept_where_the_log_is_retained(pile: Table) -> None:
    pile.run(lambda cx: catalog.ensure(cx, ["u"], []))
    quiet = Message("a", "test", "u", "u", b"", unheard=True)
    pile.publish(quiet)
    pile.publish(quiet, keeps=True)
    found = look.read(pile.cx, Kept("u", 0.0, None, 0, 10))
    assert [one.message.id for one in found] == ["a"]


@pytest.mark.parametrize("count", [1, 3, 4, 15, 16, 63, 64, 65, 149])
def test_batches_of_all_sizes_keep_their_order(pile: Table, count: int) -> None:
    names = [f"m{number}" for number in range(count)]
    pile.send(*names)
    assert ids(pile.fetch(pile.join(), 500)) == names


# Trimming and reading


def test_the_log_is_trimmed_below_the_slowest_group_and_the_oldest_lease(tmp_path: Path) -> None:
    table = Table(tmp_path, groups=("g", "h"))
    table.send(*(f"m{n}" for n in range(10)))
    one, other = (table.join(group=group) for group in table.groups)
    table.trim()
    assert table.count("log_1") == 10
    table.rule(one, table.fetch(one), DONE)
    table.fetch(other, 2)
    held = table.fetch(other, 3)
    table.trim()
    assert table.count("log_1") == 10  # the first two are out
    table.leave(other)
    table.trim()
    assert table.count("log_1") == 5
    assert ids(held) == ["m2", "m3", "m4"]
    table.close()


def test_a_trim_of_many_rows_takes_several_transactions(
    pile: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reap, "TRIM_MAX", 10)
    pile.send(*(f"m{n}" for n in range(25)))
    hand = pile.join()
    pile.rule(hand, pile.fetch(hand), DONE)
    left = []
    while pile.run(lambda cx: reap.trim(cx, 1, None)):
        left.append(pile.count("log_1"))
    assert left == [15, 5]
    assert pile.count("log_1") == 0
    assert pile.run(lambda cx: reap.trim(cx, 1, None)) is False


def test_a_retained_log_is_trimmed_by_its_age(pile: Table) -> None:
    hand = pile.join()
    for name in ("old", "new"):
        pile.send(name)
        pile.rule(hand, pile.fetch(hand), DONE)
        pile.pass_time(100.0)
    since = pile.clock.wall() - 150 * SECOND
    pile.run(lambda cx: reap.trim(cx, 1, since))
    kept = look.read(pile.cx, Kept("t", 0.0, None, 0, 10))
    assert [one.message.id for one in kept] == ["new"]


def test_without_a_group_only_a_retained_log_is_trimmed(pile: Table) -> None:
    pile.run(lambda cx: catalog.ensure(cx, ["u"], []))
    pile.publish(Message("a", "s", "u", "u", b"", unheard=True), keeps=True)
    assert pile.run(lambda cx: reap.trim(cx, 2, None)) is False
    assert pile.count("log_2") == 1
    later = pile.clock.wall() + SECOND
    pile.run(lambda cx: reap.trim(cx, 2, later))
    assert pile.count("log_2") == 0


def test_the_retained_log_is_read_by_time_and_in_pages(pile: Table) -> None:
    start = pile.manual.wall()
    for number in range(6):
        pile.send(f"m{number}")
        pile.pass_time(1.0)

    def read(since: float, until: float | None, after: int, limit: int) -> list[str]:
        found = look.read(pile.cx, Kept("t", since, until, after, limit))
        return [f"{one.position}:{one.message.id}" for one in found]

    assert read(start + 1, start + 4, 0, 10) == ["2:m1", "3:m2", "4:m3"]
    assert read(start + 1, None, 3, 2) == ["4:m3", "5:m4"]
    assert look.read(pile.cx, Kept("nowhere", 0.0, None, 0, 10)) == ()


# Looking


def test_the_age_of_the_oldest_counts_every_part(lines: Table) -> None:
    def oldest() -> float:
        return lines.lag().oldest

    worker = lines.join(lease=1000.0)
    lines.send("a1", "a2", key="a")
    lines.pass_time(5.0)
    assert oldest() == 5.0
    first, second = lines.fetch(worker)
    assert oldest() == 5.0  # leased
    lines.settle(worker, [(first, Later(100.0)), (second, Release())])
    lines.pass_time(5.0)
    assert oldest() == 10.0  # held
    lines.pass_time(100.0)
    both = lines.fetch(worker)
    assert oldest() == 110.0  # held, and out
    lines.settle(worker, [(both[0], Dead("x")), (both[1], DONE)])
    assert oldest() == 110.0  # dead
    letters = lines.join(part=Part.DEAD)
    lines.rule(letters, lines.fetch(letters), DONE)
    assert oldest() == 0.0


def test_pages_of_a_part_go_from_what_is_held_to_the_log(lines: Table) -> None:
    worker = lines.join()
    lines.send("a1", "a2", key="a")
    lines.send("b1", key="b")
    lines.rule(worker, lines.fetch(worker), Release())
    lines.send("a3", key="a")
    lines.send("c1", "c2", key="c")
    [first] = lines.fetch(worker, 1)
    lines.rule(worker, [first], Later(50.0))

    def names(part: Part) -> list[str]:
        found: list[str] = []
        after = ""
        while page := look.browse(lines.cx, Page(lines.groups[0], lines.clock, part, after, 2)):
            found += [one.message.id for one in page]
            after = page[-1].position
        return found

    assert names(Part.READY) == ["b1", "c1", "c2"]
    assert names(Part.DELAYED) == ["a1", "a2", "a3"]  # in the order of their coming to be held
    assert names(Part.DEAD) == []
    assert (lines.lag().ready, lines.lag().delayed) == (3, 3)


def test_how_long_there_is_nothing_is_known_without_fetching(lines: Table) -> None:
    worker = lines.join(lease=30.0)
    group = lines.groups[0]

    def left(hand: Hand) -> float:
        return fetch.wait(lines.cx, hand, lines.clock.now())

    assert left(worker) == float("inf")
    lines.send("a1", key="a")
    assert left(worker) == 0.0
    taken = lines.fetch(worker)
    assert left(worker) == 30.0  # the end of the lease
    lines.rule(worker, taken, Later(10.0))
    assert left(worker) == 10.0
    lines.pass_time(10.0)
    lines.rule(worker, lines.fetch(worker), Dead("x", park=True))
    assert left(worker) == float("inf")  # behind a parked letter there is no time
    assert left(lines.join(part=Part.DEAD)) == 0.0
    lines.publish(message("t", key="a", deliver_at=lines.manual.wall() + 7.0))
    assert left(worker) == 7.0
    lines.run(lambda cx: catalog.pause(cx, group, is_paused=True))
    assert left(worker) == float("inf")
    assert left(lines.join(part=Part.DEAD)) == 0.0
    lines.run(lambda cx: catalog.retire(cx, lines.sources[0]))
    assert left(worker) == float("inf")
    assert lines.fetch(worker) == []


# The catalogue


def test_names_are_checked(pile: Table) -> None:
    for topics, sources in (
        (["a*"], []),
        ([], [Source("t", "g;drop")]),
        ([], [Source("../t", "g")]),
    ):
        with pytest.raises(Misuse):
            catalog.check_names(topics, sources)


def test_a_group_that_retires_takes_what_only_it_had_not_passed(tmp_path: Path) -> None:
    table = Table(tmp_path, groups=("g", "h"))
    table.send("a", "b")
    one = table.join()
    table.rule(one, table.fetch(one), DONE)
    table.run(lambda cx: catalog.retire(cx, table.sources[1]))
    assert table.count("log_1") == 0
    table.send("c")
    table.run(lambda cx: catalog.retire(cx, table.sources[0]))
    assert [table.count(name) for name in ("log_1", "source", "lease", "held")] == [0, 0, 0, 0]
    assert table.run(lambda cx: catalog.retire(cx, table.sources[0])) == []
    table.close()


def test_a_group_from_the_earliest_reads_what_is_kept(pile: Table) -> None:
    pile.send("a", "b")
    late = Source("t", "late", start=Start.EARLIEST)
    pile.run(lambda cx: catalog.ensure(cx, [], [late]))
    group = look.find(pile.cx, late)
    assert group is not None
    assert pile.lag(group).ready == 2
    assert ids(pile.fetch(pile.join(group=group))) == ["a", "b"]
    assert look.sources(pile.cx) == [pile.sources[0], late]
