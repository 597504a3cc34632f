"""Histograms: within 2 %, bounded, and they add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.core.histogram import LEAST, MOST, Histogram

durations = st.floats(LEAST, MOST / 2)


def of(*seconds: float) -> Histogram:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return histogram


def test_of_nothing_everything_is_zero() -> None:
    empty = Histogram()
    assert (empty.quantile(0.5), empty.mean, empty.count, empty.most) == (0.0, 0.0, 0, 0.0)
    assert empty.share_above(1.0) == 0.0


def test_quantiles_of_a_hundred() -> None:
    histogram = of(*(n / 100 for n in range(1, 101)))
    assert histogram.quantile(0.5) == pytest.approx(0.5, rel=0.02)
    assert histogram.quantile(0.99) == pytest.approx(0.99, rel=0.02)
    assert histogram.quantile(0.0) == pytest.approx(0.01, rel=0.02)
    assert histogram.quantile(1.0) <= 1.0
    assert histogram.mean == pytest.approx(0.505)
    assert histogram.share_above(0.9) == pytest.approx(0.1, abs=0.021)
    assert histogram.share_above(float("inf")) == 0.0


@given(st.lists(durations, min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_is_within_two_percent_of_one_that_was_there(
    seconds: list[float], share: float
) -> None:
    found = of(*seconds).quantile(share)
    ranked = sorted(seconds)
    true = ranked[max(0, min(len(ranked) - 1, -int(-share * len(ranked) // 1) - 1))]
    assert min(abs(found - each) / each for each in ranked) <= 0.02
    assert found == pytest.approx(true, rel=0.04) or share * len(ranked) % 1 < 1e-6


@given(st.lists(durations), st.lists(durations))
def test_two_add_up_to_one_of_both(some: list[float], more: list[float]) -> None:
    both, other = of(*some), of(*more)
    both.add(other)
    once = of(*some, *more)
    assert both.buckets == once.buckets
    assert (both.count, both.most) == (once.count, once.most)
    assert both.total == pytest.approx(once.total)


@given(st.lists(st.floats(allow_nan=False), max_size=500))
def test_whatever_comes_it_is_bounded(seconds: list[float]) -> None:
    assert len(of(*seconds).buckets) <= 1_281


def test_it_is_kept_and_comes_back() -> None:
    histogram = of(0.1, 0.2, 3.0)
    again = Histogram(histogram.buckets, total=histogram.total)
    assert again.buckets == histogram.buckets
    assert again.mean == pytest.approx(histogram.mean)
    assert again.most == pytest.approx(3.0, rel=0.02)
    again.record(0.1, 5)
    assert (again.count, histogram.count) == (8, 3)
