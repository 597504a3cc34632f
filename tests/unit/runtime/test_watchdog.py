"""The watchdog, told of progress and of the time."""

from __future__ import annotations

import pytest
from worker_parts import ORDERED, PLAIN

from callcast.ports.broker import Lag, Source
from callcast.runtime.watchdog import Watchdog


def test_silence_counts_from_the_latest_progress() -> None:
    dog = Watchdog(PLAIN, patience=30.0, now=100.0)
    assert dog.silence(129.9) == 0
    assert dog.silence(130.0) == 30.0
    dog.progress(130.0)
    assert dog.silence(159.0) == 0
    dog.excuse(159.0)
    assert dog.silence(188.0) == 0
    assert dog.silence(190.0) == 31.0


def test_a_new_consumer_is_well_once_something_moves() -> None:
    dog = Watchdog(PLAIN, patience=30.0, now=0.0)
    assert dog.is_well
    dog.rebuilt(31.0)
    assert not dog.is_well
    assert dog.silence(60.0) == 0
    dog.excuse(60.0)
    assert not dog.is_well
    dog.progress(61.0)
    assert dog.is_well


@pytest.mark.parametrize(
    ("source", "lag", "stuck"),
    [
        (PLAIN, Lag(), False),
        (PLAIN, Lag(ready=1), True),
        (PLAIN, Lag(ready=1, leased=5, delayed=5), True),
        (PLAIN, Lag(ready=1, paused=True), False),
        (ORDERED, Lag(ready=1), True),
        (ORDERED, Lag(ready=1, leased=1), False),
        (ORDERED, Lag(ready=1, delayed=1), False),
    ],
)
def test_it_is_stuck_when_messages_wait_that_nothing_else_holds(
    source: Source, lag: Lag, stuck: bool
) -> None:
    assert Watchdog(source, patience=30.0, now=0.0).is_stuck(lag) is stuck
