"""Leases: who is renewed, until when, and the thread that does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from worker_parts import FakeConsumer, delivery

from callcast.runtime.clock import AsyncioClock
from callcast.runtime.leases import Hold, Leases


def poll(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true within 10 s"
        time.sleep(0.005)


def lease_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "callcast-leases"]


def test_a_hold_is_renewed_at_a_third_of_its_lease() -> None:
    consumer = FakeConsumer()
    hold = Hold(consumer, lease=60.0, now=100.0)
    one, two = delivery("1"), delivery("2")
    hold.add([one, two])
    hold.renew(119.9)
    assert consumer.renewed == []
    hold.renew(120.0)
    hold.renew(120.1)
    assert consumer.renewed == [["1", "2"]]
    assert hold.due == 140.0


def test_past_its_end_a_delivery_is_not_renewed() -> None:
    consumer = FakeConsumer()
    hold = Hold(consumer, lease=60.0, now=0.0)
    hung, waiting = delivery("hung"), delivery("waiting")
    hold.add([hung, waiting])
    hold.until[hung] = 30.0
    hold.renew(20.0)
    hold.renew(40.0)
    hold.until.pop(waiting)
    hold.renew(60.0)
    assert consumer.renewed == [["hung", "waiting"], ["waiting"]]


def test_a_renewal_that_fails_is_told_and_tried_again() -> None:
    consumer = FakeConsumer()
    hold = Hold(consumer, lease=3.0, now=0.0)
    hold.add([delivery("1")])
    told: list[Exception] = []
    consumer.renew_error = OSError("gone")
    hold.failed = told.append
    hold.renew(1.0)
    hold.renew(2.0)
    assert [str(each) for each in told] == ["gone", "gone"]
    assert consumer.renewed == [["1"], ["1"]]


def test_one_thread_renews_all_holds_and_ends_with_the_last() -> None:
    clock = AsyncioClock()
    leases = Leases(clock)
    first, second = FakeConsumer(), FakeConsumer()
    holds = [Hold(each, lease=0.06, now=clock.now()) for each in (first, second)]
    for hold in holds:
        hold.add([delivery("1")])
        leases.join(hold)
    assert len(lease_threads()) == 1
    poll(lambda: len(first.renewed) >= 2 and len(second.renewed) >= 2)
    leases.leave(holds[0])
    leases.leave(holds[0])
    count = len(first.renewed)
    more = len(second.renewed)
    poll(lambda: len(second.renewed) >= more + 2)
    assert len(first.renewed) <= count + 1  # a round that was under way
    leases.leave(holds[1])
    poll(lambda: not leases.is_running)
    poll(lambda: lease_threads() == [])


def test_after_its_end_the_thread_starts_again() -> None:
    clock = AsyncioClock()
    leases = Leases(clock)
    consumer = FakeConsumer()
    for _ in range(2):
        hold = Hold(consumer, lease=0.03, now=clock.now())
        hold.add([delivery("1")])
        before = len(consumer.renewed)
        leases.join(hold)
        poll(lambda before=before: len(consumer.renewed) > before)  # type: ignore[misc]
        leases.leave(hold)
        poll(lambda: not leases.is_running)
