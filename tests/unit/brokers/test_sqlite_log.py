"""The log: publishing, trimming, looking into it, and the catalogue of groups."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlite_bench import Table, ids, message

from callcast.brokers.sqlite import catalog, fetch, kept, look, reap
from callcast.brokers.sqlite.dbclock import SECOND
from callcast.brokers.sqlite.look import Page
from callcast.brokers.sqlite.records import Hand
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
    found = kept.read(pile.cx, window("u"))
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
    found = kept.read(pile.cx, window("t"))
    assert [one.message.id for one in found] == ["new"]


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

    def read(since: float, until: float | None, after: str = "", last: str = "") -> list[str]:
        asked = kept.window("t", since=since, until=until, after=after, last=last, limit=3)
        return [f"{one.position}:{one.message.id}" for one in kept.read(pile.cx, asked)]

    assert read(start + 1, start + 4) == ["2:m1", "3:m2", "4:m3"]
    assert read(start + 1, None, "3") == ["4:m3", "5:m4", "6:m5"]
    assert read(start + 1, None, "3", "5") == ["4:m3", "5:m4"]
    assert [one.at for one in kept.read(pile.cx, window("t"))] == [start + n for n in range(6)]
    assert kept.read(pile.cx, window("nowhere")) == ()


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "²", "9" * 20])
def test_what_is_no_position_is_refused(position: str) -> None:
    with pytest.raises(Misuse, match="is no position"):
        kept.window("t", since=0.0, until=None, after=position, last="", limit=1)


def window(topic: str) -> kept.Window:
    """All that is kept of a topic."""
    return kept.window(topic, since=0.0, until=None, after="", last="", limit=10)


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
