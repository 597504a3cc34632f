"""Many durations at once fall where they fall one by one."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from callcast.core.histogram import LEAST, MOST, Histogram

SECONDS = st.lists(st.floats(-1.0, 1e9), min_size=1, max_size=50)


@given(SECONDS)
def test_a_quantile_is_the_same_to_within_two_percent(seconds: list[float]) -> None:
    at_once, one_by_one = Histogram(), Histogram()
    at_once.record_all(seconds)
    for each in seconds:
        one_by_one.record(each)
    assert at_once.count == one_by_one.count
    assert at_once.most == one_by_one.most
    for share in (0.5, 0.99):
        wanted = sorted(seconds)[max(0, -int(-share * len(seconds) // 1) - 1)]
        wanted = min(max(wanted, LEAST), MOST)
        got = at_once.quantile(share)
        assert abs(got - wanted) <= 0.02 * wanted or got == at_once.most


def test_two_halves_are_the_whole_and_its_buckets_make_it_again() -> None:
    whole, half = Histogram(), Histogram()
    whole.record_all([0.1, 0.2, 0.4])
    half.record(0.8)
    whole.add(half)
    again = Histogram(whole.buckets, total=whole.total)
    assert (again.count, again.total) == (whole.count, whole.total)
    assert abs(again.mean - 1.5 / 4) < 1e-9
    assert abs(again.most - 0.8) <= 0.02 * 0.8
    assert whole.share_above(0.3) == 0.5
    assert whole.share_above(inf) == 0.0


def test_a_share_of_all_and_more_is_the_longest() -> None:
    histogram = Histogram()
    histogram.record(0.3)
    assert histogram.quantile(2.0) == 0.3


def test_nothing_at_once_is_nothing() -> None:
    histogram = Histogram()
    histogram.record_all([])
    assert histogram.count == 0
    assert histogram.quantile(0.5) == histogram.mean == histogram.most == 0.0
