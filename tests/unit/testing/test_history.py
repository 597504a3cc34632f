"""The history checker finds every kind of bad history, and nothing in a good one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.testing.history import Entry, How, Report, Rules, check, entries, line

MAIL = "mail"
STRICT = Rules(once=True, ordered=True)


class Run:
    """A history written by hand; each entry is later than the one before."""

    def __init__(self) -> None:
        self.all: list[Entry] = []

    def _add(self, entry: Entry) -> Run:
        self.all.append(entry)
        return self

    def publish(
        self, *ids: str, end: How | None = "ok", proc: str = "p", key: str | None = None
    ) -> Run:
        for id_ in ids:
            seq = sum(each.key == key and each.type == "invoke" for each in self.all)
            hows: list[How] = ["invoke"] if end is None else ["invoke", end]
            for how in hows:
                mono = float(len(self.all))
                self._add(Entry(proc, "publish", id_, type=how, mono=mono, key=key, key_seq=seq))
        return self

    def see(self, op: str, *ids: str, group: str = MAIL, proc: str = "c") -> Run:
        for id_ in ids:
            sent = next((each for each in self.all if each.id == id_ and each.key), None)
            self._add(
                Entry(
                    proc,
                    op,  # type: ignore[arg-type]  # a table of words
                    id_,
                    mono=float(len(self.all)),
                    group="" if op == "wire" else group,
                    key=sent.key if sent else None,
                    key_seq=sent.key_seq if sent else 0,
                )
            )
        return self

    def report(self, rules: Rules = STRICT, groups: Iterable[str] = (MAIL,)) -> Report:
        return check(self.all, list(groups), rules)

    def fault(self, rules: Rules = STRICT, groups: Iterable[str] = (MAIL,)) -> str:
        """The one sentence that the checker has to say."""
        [fault] = self.report(rules, groups).faults
        return fault


def test_a_good_history_has_no_fault() -> None:
    run = Run().publish("a", "b", key="k").publish("c").see("wire", "a", "b", "c")
    run.see("effect", "a", "c", "b").see("settle", "a", "b", "c")
    report = run.report()
    assert report.faults == ()
    assert report.acknowledged == {"a", "b", "c"}
    assert str(report).endswith("all promises were kept")


def test_a_run_without_an_acknowledged_message_is_void() -> None:
    assert Run().publish("a", end="fail").fault() == "the run is void: nothing was acknowledged"


def test_a_lost_message_is_named_with_its_producer_and_group() -> None:
    run = Run().publish("a", "b", "c").see("effect", "a", "c")
    assert run.fault() == "mail lost 1 (b) of p (middle)"


@pytest.mark.parametrize(
    ("arrived", "where"),
    [("bc", "prefix"), ("ac", "middle"), ("ab", "postfix"), ("", "all")],
)
def test_the_place_of_a_loss_is_told(arrived: str, where: str) -> None:
    report = Run().publish("a", "b", "c").see("effect", *arrived).report()
    assert [lost.where for lost in report.lost] == [where]
    assert {id_ for lost in report.lost for id_ in lost.ids} == set("abc") - set(arrived)


def test_each_producer_and_each_group_is_judged_for_itself() -> None:
    run = Run().publish("a1", "a2", proc="a").publish("b1", "b2", proc="b")
    run.see("effect", "a1", "b2").see("effect", "a1", "a2", "b1", "b2", group="pack")
    report = run.report(groups=["mail", "pack"])
    assert [(one.group, one.producer, one.ids, one.where) for one in report.lost] == [
        ("mail", "a", ("a2",), "postfix"),
        ("mail", "b", ("b1",), "prefix"),
    ]


@pytest.mark.parametrize("end", ["dead", "expire"])
def test_what_is_dead_or_expired_is_not_lost(end: str) -> None:
    assert Run().publish("a", "b").see("effect", "a").see(end, "b").report().faults == ()


def test_what_only_the_wire_saw_is_lost() -> None:
    assert Run().publish("a").see("wire", "a").fault() == "mail lost 1 (a) of p (all)"


def test_a_phantom_is_told() -> None:
    run = Run().publish("a").see("effect", "a", "ghost")
    assert run.fault() == "nobody published 1 (ghost)"


def test_a_phantom_on_the_wire_is_told() -> None:
    assert "ghost" in Run().publish("a").see("effect", "a").see("wire", "ghost").fault()


def test_what_was_refused_must_not_arrive() -> None:
    run = Run().publish("a").publish("r", end="fail").see("effect", "a", "r")
    assert run.fault() == "refused, and there all the same: 1 (r)"


@pytest.mark.parametrize("end", ["info", None])
def test_what_is_unknown_may_arrive_or_not(end: How | None) -> None:
    run = Run().publish("a").publish("u1", "u2", end=end).see("effect", "a", "u1")
    report = run.report()
    assert report.faults == ()
    assert (report.unknown, report.recovered) == ({"u1", "u2"}, {"u1"})


def test_a_repeat_that_is_acknowledged_makes_an_unknown_one_acknowledged() -> None:
    run = Run().publish("a", end="info").publish("a", end="ok")
    report = run.report()
    assert (report.acknowledged, report.unknown) == ({"a"}, frozenset())
    assert len(report.lost) == 1


def test_a_refused_repeat_of_an_unknown_one_leaves_it_unknown() -> None:
    run = Run().publish("a").publish("u", end=None).publish("u", end="fail").see("effect", "a", "u")
    report = run.report()
    assert (report.faults, report.unknown) == ((), {"u"})


def test_a_second_effect_is_told_where_effects_happen_once() -> None:
    run = Run().publish("a").see("effect", "a", "a")
    assert run.fault() == "mail did twice: 1 (a)"


def test_a_second_effect_before_the_settle_is_only_counted_where_delivery_is_at_least_once() -> (
    None
):
    report = Run().publish("a", "b").see("effect", "a", "a", "a", "b").report(Rules())
    assert (report.faults, report.repeats) == ((), {MAIL: 2})


def test_a_second_effect_after_its_done_is_told() -> None:
    run = Run().publish("a").see("effect", "a").see("settle", "a").see("effect", "a")
    assert run.fault(Rules()) == "mail had again after its Done: 1 (a)"
    assert run.report(Rules(settles_durably=False)).faults == ()


def test_what_was_redriven_may_come_again() -> None:
    run = Run().publish("a").see("effect", "a").see("settle", "a").see("dead", "a")
    run.see("redrive", "a").see("effect", "a")
    assert run.report().faults == ()


def test_what_is_handled_and_dead_is_told() -> None:
    run = Run().publish("a").see("effect", "a").see("dead", "a")
    assert run.fault() == "mail has handled and dead: 1 (a)"
    assert run.report(Rules()).faults == ()
    run = Run().publish("a").see("effect", "a").see("settle", "a").see("dead", "a")
    assert run.fault(Rules()) == "mail has handled and dead: 1 (a)"


def test_broken_order_of_a_key_is_told() -> None:
    run = Run().publish("a", "b", "c", key="k").see("effect", "a", "c", "b")
    assert run.fault() == "mail had c of key k before b"
    assert run.report(Rules(once=True)).faults == ()


def test_broken_order_on_the_wire_is_told() -> None:
    run = Run().publish("a", "b", key="k").see("wire", "b", "a").see("effect", "a", "b")
    assert run.fault() == "the wire had b of key k before a"


def test_only_first_occurrences_count_for_order() -> None:
    run = Run().publish("a", "b", key="k").see("effect", "a", "b", "a", "b")
    assert run.report(Rules(ordered=True)).faults == ()


def test_keys_have_no_order_among_each_other() -> None:
    run = Run().publish("a1", "a2", key="a").publish("b1", "b2", key="b")
    assert run.see("effect", "b1", "a1", "a2", "b2").report().faults == ()


def test_a_key_goes_past_its_dead_message_only_where_that_was_declared() -> None:
    run = Run().publish("a", "b", "c", key="k").see("effect", "a").see("dead", "b")
    run.see("effect", "c")
    assert run.report().faults == ()
    strict = Rules(once=True, ordered=True, gaps=False)
    assert run.fault(strict) == "mail went on with key k past 1 (b)"


def test_a_refused_message_leaves_no_gap() -> None:
    run = Run().publish("a", key="k").publish("b", end="fail", key="k").publish("c", key="k")
    strict = Rules(once=True, ordered=True, gaps=False)
    assert run.see("effect", "a", "c").report(strict).faults == ()


def test_one_id_with_two_bodies_is_told() -> None:
    run = Run().publish("a")
    run.all += [
        Entry("p", "wire", "a", mono=8.0, hash="1"),
        Entry("c", "effect", "a", mono=9.0, group=MAIL, hash="2"),
    ]
    assert run.fault() == "several bodies under one id: 1 (a)"


def test_entries_are_judged_in_the_order_of_their_clock() -> None:
    run = Run().publish("a", "b", key="k").see("effect", "a", "b")
    assert check(reversed(run.all), [MAIL], STRICT).faults == ()


def test_many_ids_are_counted_and_a_few_are_named() -> None:
    run = Run().publish(*(f"m{number}" for number in range(9)))
    assert run.fault() == "mail lost 9 (m0, m1, m2, m3, m4, ...) of p (all)"


def test_a_history_survives_the_file_and_a_cut_line_never_happened() -> None:
    run = Run().publish("a", "€", key="k").see("effect", "a")
    text = b"".join(map(line, run.all))
    assert entries(text) == run.all
    assert entries(text[:-3]) == run.all[:-1]
    assert entries(b"") == entries(b'{"proc":') == []


@given(
    sent=st.lists(st.sampled_from(["ok", "fail", "info"]), min_size=1, max_size=12),
    seen=st.lists(st.integers(0, 14), max_size=20),
)
def test_lost_and_phantom_are_set_differences(sent: list[How], seen: list[int]) -> None:
    run = Run()
    for number, end in enumerate(sent):
        run.publish(str(number), end=end)
    report = run.see("effect", *map(str, seen)).report(Rules())
    ends = {str(number): end for number, end in enumerate(sent)}
    acknowledged = {id_ for id_, end in ends.items() if end == "ok"}
    arrived = set(map(str, seen))
    assert {id_ for lost in report.lost for id_ in lost.ids} == acknowledged - arrived
    strange = [fault for fault in report.faults if fault.startswith("nobody published")]
    assert bool(strange) == bool(arrived - ends.keys())
    refused = {id_ for id_, end in ends.items() if end == "fail"}
    there = [fault for fault in report.faults if fault.startswith("refused")]
    assert bool(there) == bool(arrived & refused)
