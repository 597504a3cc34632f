"""How long to wait before a broker is asked again."""

from __future__ import annotations

from callcast.runtime.backoff import FIRST, MOST, Backoff


def test_each_wait_doubles_up_to_the_most_and_starts_anew_after_a_success() -> None:
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.next() for _ in range(30)]
    assert waits[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert waits[-1] == MOST
    assert backoff.failures == 30
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next() == FIRST


def test_the_dice_shorten_a_wait_by_half_at_most() -> None:
    assert Backoff(lambda: 0.0).next() == FIRST / 2
