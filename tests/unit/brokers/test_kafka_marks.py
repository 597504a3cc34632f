"""What the metadata of a committed offset remembers, and how little of it is ever lost."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callcast.brokers.kafka import marks
from callcast.brokers.kafka.marks import PLAIN, SETTLED, TEXT_MAX, Mark, Marks, Run

SERVER_MAX = 4_096
"""Bytes of metadata that a server takes (``offset.metadata.max.bytes``)."""
NOW = 1_764_000_000.0
MICRO = 1e-6

MARK = st.one_of(
    st.just(PLAIN),
    st.just(SETTLED),
    st.builds(Mark, is_out=st.just(True), crashes=st.integers(0, 12), round=st.integers(0, 9)),
    st.builds(Mark, crashes=st.integers(1, 12)),
    st.builds(
        Mark, round=st.integers(1, 9), due=st.integers(0, 12_000).map(lambda at: NOW + at / 10)
    ),
)
RUNS = st.lists(st.builds(Run, st.integers(1, 40), MARK), max_size=12)


def each(runs: list[Run]) -> list[Mark]:
    """One mark for each offset."""
    return [run.mark for run in runs for _ in range(run.length)]


def after_a_death(mark: Mark, *, below: bool) -> Mark:
    """What a successor is to be told of one offset, said anew."""
    if mark.is_settled:
        return mark
    died = mark.is_out or (below and not mark.due)
    return Mark(crashes=mark.crashes + died, round=mark.round, due=mark.due)


@given(st.integers(0, 10**12), st.integers(0, 300), RUNS)
def test_what_is_noted_is_read_again_offset_by_offset(
    base: int, horizon: int, runs: list[Run]
) -> None:
    found = marks.decode(base, marks.encode(horizon, marks.joined(runs)))
    noted = each(runs)
    assert found.end <= base + max(horizon, len(noted))
    for index in range(max(len(noted), horizon) + 3):
        mark = noted[index] if index < len(noted) else PLAIN
        assert found.at(base + index) == after_a_death(mark, below=index < horizon)


@given(RUNS, st.integers(-5, 60), st.integers(0, 80))
def test_how_much_is_not_settled_is_counted(runs: list[Run], first: int, span: int) -> None:
    found = Marks(100, 0, runs)
    noted = [*each(runs), *[PLAIN] * 200]
    part = [noted[max(0, at)] if at >= 0 else PLAIN for at in range(first, first + span)]
    assert found.unsettled(100 + first, 100 + first + span) == (
        sum(not mark.is_settled for mark in part),
        sum(mark.is_out for mark in part),
    )
    start = max(0, first)
    expected = next(at for at in range(start, 500) if not [*noted, PLAIN][at:][:1][0].is_settled)
    assert found.first_unsettled(100 + start) == 100 + expected


@given(st.integers(0, 300), RUNS, st.integers(0, 500))
def test_what_nobody_has_read_yet_can_be_noted_again(
    horizon: int, runs: list[Run], read: int
) -> None:
    """A partition that moves twice in a row: what was noted survives who never came to read it."""
    found = marks.decode(100, marks.encode(horizon, runs))
    rest = list(found.rest(100 + read))
    again = marks.decode(100 + read, marks.encode(0, marks.joined(rest)))
    for offset in range(100 + read, 100 + read + 600):
        assert again.at(offset) == found.at(offset)


@given(st.integers(0, 300), RUNS, st.integers(0, 500))
def test_nothing_was_out_beyond_the_end_of_the_log(horizon: int, runs: list[Run], end: int) -> None:
    found, uncut = Marks(100, horizon, runs), Marks(100, horizon, runs)
    found.cut(100 + end)
    for offset in range(100, 700):
        assert found.at(offset) == (uncut.at(offset) if offset < 100 + end else PLAIN)
    assert found.end <= max(100, min(uncut.end, 100 + end))


def test_nothing_to_say_is_no_text() -> None:
    assert marks.encode(0, []) == ""
    assert marks.encode(7, []) == "c1 7 "
    assert marks.decode(5, "").end == 5
    assert marks.decode(5, None).at(5) == PLAIN


def test_the_text_is_readable() -> None:
    runs = [
        Run(1, Mark(round=1, due=NOW)),
        Run(12, SETTLED),
        Run(1, Mark(round=2, due=NOW + 12.5)),
        Run(1, Mark(round=1, due=NOW + 2.5)),
        Run(3, Mark(is_out=True, crashes=2)),
    ]
    text = "c1 0 1r1d17640000000,12s,1r2d+125,1r1d-100,3oc2"
    assert marks.encode(0, runs) == text
    assert marks.decode(0, text).at(14) == Mark(round=1, due=NOW + 2.5)


def test_a_due_time_is_rounded_up_and_never_early() -> None:
    text = marks.encode(0, [Run(1, Mark(round=1, due=NOW + 0.01))])
    assert marks.decode(0, text).at(0).due == NOW + 0.1


@pytest.mark.parametrize(
    "text",
    ["{}", "c9 7 3s", "c1", "c1 x 3q", "c1 -1 ,,", "c1 0 s3", "c1 0 3d+5x", "\x00", "c1 0 ," * 900],
)
def test_a_text_of_somebody_else_says_nothing(text: str) -> None:
    found = marks.decode(5, text)
    assert (found.base, found.end) == (5, 5)
    assert found.at(5) == PLAIN


def test_a_later_version_s_word_ends_what_is_understood() -> None:
    found = marks.decode(0, "c1 0 2s,1z9,4s")
    assert [found.at(offset) for offset in range(4)] == [SETTLED, SETTLED, PLAIN, PLAIN]


@given(st.integers(0, 10**9), st.text("c1rdso+-, 5", max_size=40))
def test_no_text_stops_who_takes_a_partition_over(base: int, text: str) -> None:
    found = marks.decode(base, f"c1 {text}")
    assert found.end >= base
    assert not found.at(found.end).is_settled
    marks.encode(0, found.rest(base))


def heads(count: int, gap: Run, *, spread: float = 1_200.0) -> list[Run]:
    """So many held heads, each put off to a time of its own, with something between them."""
    dues = [NOW + spread * ((at * 7_919) % count) / count for at in range(count)]
    return [run for due in dues for run in (Run(1, Mark(round=1, due=due)), gap)]


def test_three_hundred_held_heads_are_remembered_to_the_last() -> None:
    runs = heads(300, Run(2, SETTLED))
    text = marks.encode(0, runs)
    assert len(text.encode()) <= TEXT_MAX < SERVER_MAX
    found = marks.decode(0, text)
    for offset, mark in enumerate(each(runs)):
        assert found.at(offset).is_settled is mark.is_settled
        assert found.at(offset).round == mark.round
        assert mark.due - MICRO <= found.at(offset).due < mark.due + 0.11


def many(seed: int) -> list[Run]:
    """Hundreds of runs of all kinds."""
    dice = random.Random(seed)
    kinds = [
        lambda: PLAIN,
        lambda: SETTLED,
        lambda: Mark(is_out=True, crashes=dice.randrange(3)),
        lambda: Mark(crashes=dice.randrange(1, 9)),
        *[lambda: Mark(round=dice.randrange(1, 5), due=NOW + dice.uniform(0, 1_200))] * 4,
    ]
    return [
        Run(dice.randrange(1, 900), dice.choice(kinds)()) for _ in range(dice.randrange(200, 1_000))
    ]


@settings(deadline=None, max_examples=50)  # a thousand runs take their time on a busy machine
@given(st.integers(0, 3_000), st.integers(0))
def test_however_much_is_noted_it_fits_and_nothing_is_early_or_skipped(
    horizon: int, seed: int
) -> None:
    """What does not fit is told of in larger pieces: some things are repeated or late."""
    runs = marks.joined(many(seed))
    text = marks.encode(horizon, runs)
    assert len(text.encode()) <= TEXT_MAX < SERVER_MAX
    found = marks.decode(0, text)
    offset = 0
    for run in runs:
        for at in {offset, offset + run.length - 1}:
            told, mark = found.at(at), run.mark
            assert mark.is_settled or not told.is_settled
            if at < found.end and not mark.is_settled:
                assert told.due >= mark.due - MICRO
                assert (told.round > 0) >= (mark.round > 0)
        offset += run.length


@pytest.mark.parametrize("count", [400, 1_000])
def test_a_thousand_held_heads_are_held_though_not_each_by_itself(count: int) -> None:
    runs = heads(count, Run(1, PLAIN))
    text = marks.encode(0, runs)
    assert len(text) <= TEXT_MAX
    found = marks.decode(0, text)
    for offset, mark in enumerate(each(runs)):
        assert found.at(offset).due >= mark.due - MICRO
        assert found.at(offset).round >= min(1, mark.round)


def test_a_crash_is_remembered_among_a_thousand_held_heads() -> None:
    runs = heads(1_000, Run(1, SETTLED))
    runs[1_000] = Run(1, Mark(crashes=7, round=1))
    runs[1_500] = Run(1, Mark(is_out=True, crashes=1))
    found = marks.decode(0, marks.encode(0, runs))
    assert found.at(1_000).crashes == 7
    assert found.at(1_500).crashes == 2
    assert found.at(999).crashes == 0


def test_what_cannot_be_told_in_larger_pieces_ends_with_a_whole_word() -> None:
    runs = [Run(1, Mark(crashes=1 + at % 2)) for at in range(3_000)]
    text = marks.encode(0, runs)
    assert TEXT_MAX - 10 < len(text) <= TEXT_MAX
    found = marks.decode(0, text)
    assert found.at(found.end - 1).crashes == runs[found.end - 1].mark.crashes
    assert math.isclose(found.end, TEXT_MAX / 4, rel_tol=0.01)


def test_what_is_alike_is_one_and_what_says_nothing_is_left_out() -> None:
    assert marks.joined(
        [Run(1, SETTLED), Run(0, PLAIN), Run(2, SETTLED), Run(3, PLAIN), Run(4, PLAIN)]
    ) == [Run(3, SETTLED)]
