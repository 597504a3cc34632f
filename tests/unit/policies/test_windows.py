"""Sliding windows over outcomes, by count and by time."""

from hypothesis import given
from hypothesis import strategies as st

from callcast.policies.window import CountWindow, TimeWindow, Window

outcomes = st.tuples(st.booleans(), st.booleans())


def tally(seen: list[tuple[bool, bool]]) -> tuple[int, int, int]:
    return len(seen), sum(failed for failed, _ in seen), sum(slow for _, slow in seen)


def counted(window: Window) -> tuple[int, int, int]:
    return window.calls, window.failures, window.slows


@given(st.integers(1, 12), st.lists(outcomes, max_size=60))
def test_a_count_window_holds_the_last_outcomes(size: int, seen: list[tuple[bool, bool]]) -> None:
    window = CountWindow(size)
    for number, (failed, slow) in enumerate(seen, start=1):
        window.add(0.0, failed=failed, slow=slow)
        last = seen[max(0, number - size) : number]
        assert counted(window) == tally(last)
        assert window.is_clean == (len(last) == size and not any(map(any, last)))


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.floats(0, 5, allow_nan=False), outcomes), max_size=60),
)
def test_a_time_window_holds_the_last_seconds(
    seconds: int, seen: list[tuple[float, tuple[bool, bool]]]
) -> None:
    window = TimeWindow(seconds)
    now = 1_000.0
    all_seen: list[tuple[int, tuple[bool, bool]]] = []
    for pause, (failed, slow) in seen:
        now += pause
        window.add(now, failed=failed, slow=slow)
        all_seen.append((int(now), (failed, slow)))
        inside = [each for second, each in all_seen if second > int(now) - seconds]
        assert counted(window) == tally(inside)
        assert not window.is_clean


def test_a_time_of_the_past_counts_as_the_newest() -> None:
    window = TimeWindow(3)
    window.add(100.0, failed=True, slow=False)
    window.add(98.0, failed=True, slow=True)
    assert counted(window) == (2, 2, 1)
    window.add(102.9, failed=False, slow=False)
    assert counted(window) == (3, 2, 1)
    window.add(103.0, failed=False, slow=False)
    assert counted(window) == (2, 0, 0)


def test_a_cleared_window_knows_nothing() -> None:
    for window in (CountWindow(2), TimeWindow(2)):
        window.add(5.0, failed=True, slow=True)
        window.add(5.0, failed=True, slow=True)
        window.clear()
        assert counted(window) == (0, 0, 0)
        assert not window.is_clean
        window.add(6.0, failed=False, slow=True)
        assert counted(window) == (1, 0, 1)
