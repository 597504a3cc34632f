"""More than a worker has slots is here at once only while handlers are quick."""

from __future__ import annotations

from callcast.runtime.pace import QUICK, Pace


def handled(pace: Pace, *, took: float, now: float = 0.0) -> float:
    """Fetch all there is room for, and have it handled in `took` seconds; the time then."""
    pace.fetched(pace.room, pace.room, now)
    pace.look(0, now + took)
    return now + took


def test_there_is_room_for_as_many_as_there_are_slots() -> None:
    pace = Pace(8, 0.0)
    assert [pace.free(owned) for owned in (0, 3, 8, 9)] == [8, 5, 0, 0]


def test_a_room_that_is_handled_at_once_doubles_up_to_four_times_the_slots() -> None:
    pace = Pace(8, 0.0)
    rooms = []
    for _ in range(4):
        handled(pace, took=QUICK * 0.9)
        rooms.append(pace.room)
    assert rooms == [16, 32, 32, 32]


def test_a_room_that_took_longer_is_as_large_as_the_slots() -> None:
    pace = Pace(8, 0.0)
    now = handled(pace, took=0.0)
    handled(pace, took=QUICK, now=now)
    assert pace.room == 8


def test_a_fetch_that_brought_less_ends_it() -> None:
    pace = Pace(8, 0.0)
    now = handled(pace, took=0.0)
    pace.fetched(15, 16, now)
    assert pace.room == 8


def test_what_is_beyond_the_slots_is_used_up_before_more_is_fetched() -> None:
    pace = Pace(8, 0.0)
    handled(pace, took=0.0)
    assert [pace.free(owned) for owned in (16, 9, 8, 0)] == [0, 0, 8, 16]


def test_the_time_that_a_fetch_takes_is_not_counted() -> None:
    pace = Pace(8, 100.0)
    pace.look(0, 100.0)
    pace.fetched(8, 8, 160.0)
    pace.look(0, 160.0 + QUICK / 2)
    assert pace.room == 16


def test_what_is_still_here_is_not_handled() -> None:
    pace = Pace(2, 0.0)
    pace.fetched(2, 2, 0.0)
    pace.look(1, QUICK / 4)
    assert pace.room == 2
    pace.fetched(1, 1, QUICK / 4)
    pace.look(1, QUICK / 2)
    assert pace.room == 4
