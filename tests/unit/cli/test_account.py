"""The demo's account: what it counts, and that it finds each kind of wrong."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from callcast.cli.demo.account import Account, Evidence, Fault, judge

WELL = Evidence(
    answers={"a": "confirmed", "b": "refused", "c": "unanswered", "d": "confirmed"},
    orders=["a", "d"],
    holds=["a.1", "b.1", "d.1", "d.2"],
    released=["b.1", "d.1", "c.1"],
    charges=["a.1", "d.1", "d.2"],
    voided=["b.1", "d.1"],
    parcels=["a", "d"],
    mails=["d", "a"],
    redriven=["d"],
    faults=[Fault("kill", 1.5, 3)],
)


def test_all_is_well_when_every_order_is_accounted_for() -> None:
    verdict = judge(WELL)
    assert verdict.problems == []
    assert verdict.account == Account(
        placed=4,
        confirmed=2,
        refused=1,
        unanswered=1,
        fulfilled=2,
        dead=0,
        redriven=1,
        lost=0,
        twice=0,
        faults=[Fault("kill", 1.5, 3)],
    )


def test_a_confirmed_order_without_a_parcel_is_lost() -> None:
    verdict = judge(replace(WELL, parcels=["a"]))
    assert (verdict.account.fulfilled, verdict.account.lost) == (1, 1)
    assert verdict.problems == ["lost: taken, but neither fulfilled nor in the dead letters: d"]


def test_a_confirmed_order_without_a_mail_is_lost() -> None:
    assert judge(replace(WELL, mails=["a"])).account.lost == 1


def test_a_confirmed_order_in_the_dead_letters_is_not_lost() -> None:
    verdict = judge(replace(WELL, parcels=["a"], dead=["d"]))
    assert (verdict.account.dead, verdict.account.lost, verdict.problems) == (1, 0, [])


def test_a_fulfilled_order_is_not_counted_as_dead_for_an_old_dead_letter() -> None:
    account = judge(replace(WELL, dead=["d"])).account
    assert (account.fulfilled, account.dead) == (2, 0)


def test_an_unanswered_order_that_was_taken_must_be_fulfilled_too() -> None:
    taken = replace(
        WELL, orders=["a", "c", "d"], holds=[*WELL.holds, "c.2"], charges=[*WELL.charges, "c.2"]
    )
    verdict = judge(taken)
    assert verdict.account.lost == 0  # it is not among the confirmed
    assert verdict.problems == ["lost: taken, but neither fulfilled nor in the dead letters: c"]


@pytest.mark.parametrize(
    ("ledger", "rows"),
    [
        ("orders", ["a", "d", "a"]),
        ("holds", ["a.1", "b.1", "d.1", "d.2", "d.2"]),
        ("charges", ["a.1", "a.9", "d.2"]),
        ("parcels", ["a", "d", "d"]),
        ("mails", ["a", "a", "d"]),
        ("released", ["b.1", "d.1", "c.1", "b.1"]),
        ("voided", ["b.1", "b.1", "d.1"]),
        ("holds", ["a.1", "b.1", "d.1", "d.1", "d.2"]),  # though both are undone
        ("charges", ["a.1", "d.1", "d.1", "d.2"]),
    ],
)
def test_a_second_row_in_any_ledger_is_found(ledger: str, rows: list[str]) -> None:
    verdict = judge(replace(WELL, **{ledger: rows}))
    assert verdict.account.twice == 1
    assert [problem.partition(":")[0] for problem in verdict.problems] == ["a second effect"]


def test_an_order_twice_in_two_ledgers_counts_twice() -> None:
    assert judge(replace(WELL, parcels=["a", "a", "d"], mails=["a", "a", "d"])).account.twice == 2


def test_a_second_attempt_is_no_second_effect_once_the_first_is_undone() -> None:
    assert judge(WELL).account.twice == 0
    assert judge(replace(WELL, released=["b.1", "c.1"])).account.twice == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"released": ["d.1"]}, "a reservation is left of an order that was not taken: b"),
        ({"charges": ["a.1", "d.2", "c.7"]}, "a charge is left of an order that was not taken: c"),
        ({"holds": ["a.1"]}, "taken without a reservation: d"),
        ({"voided": ["a.1", "d.1"]}, "taken without a charge: a"),
        ({"orders": ["a"]}, "confirmed, but not in the orders ledger: d"),
        ({"faults": [Fault("kill", 1.0, 0)]}, "the fault 'kill' hit nothing: it proves nothing"),
        ({"missed": ["no breaker opened"]}, "no breaker opened"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, object], problem: str) -> None:
    assert problem in judge(replace(WELL, **change)).problems


def test_a_refused_order_that_was_taken_all_the_same_is_found() -> None:
    verdict = judge(replace(WELL, orders=["a", "b", "d"], parcels=["a", "b", "d"]))
    assert "refused, but in the orders ledger: b" in verdict.problems


def test_many_orders_are_named_in_part() -> None:
    answers = {f"o{number}": "confirmed" for number in range(9)}
    problems = judge(Evidence(answers=answers)).problems
    assert problems[0].endswith("o0, o1, o2, o3, o4 and 4 more")


def test_the_sums_hold_whatever_happened() -> None:
    account = judge(replace(WELL, parcels=["a"], mails=["a"], dead=["x"])).account
    assert account.placed == account.confirmed + account.refused + account.unanswered
    assert account.confirmed == account.fulfilled + account.dead + account.lost
