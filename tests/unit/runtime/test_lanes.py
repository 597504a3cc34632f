"""Lanes: one key at a time, in order, whatever becomes of its head."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_parts import delivery

from callcast.ports.broker import Delivery
from callcast.runtime.lanes import Lanes, Onward, Place


def of(name: str, key: str = "k") -> Delivery:
    return delivery(name, key=key)


def test_a_free_key_runs_and_a_busy_one_waits_in_order() -> None:
    lanes = Lanes()
    first, second, third = of("1"), of("2"), of("3")
    assert lanes.arrive(first) is Place.RUN
    assert lanes.arrive(second) is Place.WAIT
    assert lanes.arrive(third) is Place.WAIT
    assert lanes.go_on(first) is second
    assert lanes.go_on(second) is third
    assert lanes.go_on(third) is None
    assert lanes.arrive(of("4")) is Place.RUN


def test_keys_run_side_by_side() -> None:
    lanes = Lanes()
    assert lanes.arrive(of("1", "a")) is Place.RUN
    assert lanes.arrive(of("2", "b")) is Place.RUN


def test_those_behind_a_head_given_back_go_back_with_it() -> None:
    lanes = Lanes()
    head, second, third, other = of("1"), of("2"), of("3"), of("x", "other")
    for each in (head, second, third, other):
        lanes.arrive(each)
    assert lanes.give_back(head) == (second, third)
    assert lanes.is_any_shut
    assert lanes.go_on(other) is None


def test_a_shut_key_takes_in_nothing_until_all_that_went_back_is_settled() -> None:
    lanes = Lanes()
    head, second, late = of("1"), of("2"), of("5")
    lanes.arrive(head)
    lanes.arrive(second)
    lanes.give_back(head)
    assert lanes.arrive(late) is Place.WAIT
    assert lanes.settled(second, is_fetching=False) is None
    onward = lanes.settled(head, is_fetching=False)
    assert onward == Onward(None, [late])  # handed out before the broker knew: it would overtake
    assert lanes.settled(late, is_fetching=False) is None
    assert not lanes.is_any_shut
    assert lanes.arrive(of("1")) is Place.RUN


def test_a_message_that_is_here_again_shows_that_the_broker_has_caught_up() -> None:
    lanes = Lanes()
    head, again, following = of("1"), of("1"), of("2")
    lanes.arrive(head)
    lanes.give_back(head)
    lanes.arrive(again)
    lanes.arrive(following)
    assert lanes.settled(head, is_fetching=True) == Onward(again, ())
    assert lanes.go_on(again) is following


def test_what_came_before_the_proof_goes_back_and_the_proof_with_it() -> None:
    lanes = Lanes()
    head, early, again = of("1"), of("5"), of("1")
    lanes.arrive(head)
    lanes.give_back(head)
    lanes.arrive(early)
    lanes.arrive(again)
    assert lanes.settled(head, is_fetching=False) == Onward(None, [early])
    assert lanes.settled(early, is_fetching=False) == Onward(again, ())


def test_a_fetch_under_way_at_the_settle_may_still_bring_what_would_overtake() -> None:
    lanes = Lanes()
    head, late = of("1"), of("5")
    lanes.arrive(head)
    lanes.give_back(head)
    assert lanes.settled(head, is_fetching=True) is None
    assert lanes.arrive(late) is Place.BACK
    lanes.fetched()
    assert lanes.settled(late, is_fetching=False) is None
    assert lanes.arrive(of("1")) is Place.RUN


def test_the_same_fetch_may_bring_the_head_again() -> None:
    lanes = Lanes()
    head, again, following = of("1"), of("1"), of("2")
    lanes.arrive(head)
    lanes.give_back(head)
    lanes.settled(head, is_fetching=True)
    assert lanes.arrive(again) is Place.RUN
    assert lanes.arrive(following) is Place.WAIT
    lanes.fetched()
    assert lanes.go_on(again) is following


def test_after_that_fetch_the_key_is_free() -> None:
    lanes = Lanes()
    head = of("1")
    lanes.arrive(head)
    lanes.give_back(head)
    lanes.settled(head, is_fetching=True)
    lanes.fetched()
    assert lanes.arrive(of("7")) is Place.RUN


def test_withdrawn_are_those_behind_and_the_head_runs_on() -> None:
    lanes = Lanes()
    head, second, other, late = of("1"), of("2"), of("x", "other"), of("3")
    for each in (head, second, other):
        lanes.arrive(each)
    assert lanes.withdraw() == [second]
    assert lanes.withdraw() == []
    lanes.arrive(late)
    assert lanes.go_on(head) is None  # the way back of the second is not settled yet
    assert lanes.settled(second, is_fetching=False) == Onward(None, [late])


def test_what_arrives_between_the_withdrawal_and_its_settle_goes_back_too() -> None:
    lanes = Lanes()
    head, second, third = of("1"), of("2"), of("3")
    lanes.arrive(head)
    lanes.arrive(second)
    lanes.withdraw()
    lanes.arrive(third)
    assert lanes.settled(second, is_fetching=True) == Onward(None, [third])
    assert lanes.settled(third, is_fetching=True) is None
    late = of("4")
    assert lanes.arrive(late) is Place.BACK  # of a fetch that was under way
    assert lanes.settled(late, is_fetching=True) is None
    again = of("2")
    assert lanes.arrive(again) is Place.WAIT
    assert lanes.go_on(head) is again


def test_a_head_that_ends_while_its_key_is_ajar_leaves_it_ajar() -> None:
    lanes = Lanes()
    head, second = of("1"), of("2")
    lanes.arrive(head)
    lanes.arrive(second)
    lanes.withdraw()
    lanes.settled(second, is_fetching=True)
    assert lanes.go_on(head) is None
    assert lanes.arrive(of("3")) is Place.BACK


def test_what_was_known_earlier_does_not_overtake_a_head_that_goes_back_now() -> None:
    lanes = Lanes()
    head, second, again = of("1"), of("2"), of("2")
    lanes.arrive(head)
    lanes.arrive(second)
    lanes.withdraw()
    lanes.settled(second, is_fetching=False)
    lanes.give_back(head)
    lanes.arrive(again)  # handed out before the head was back
    assert lanes.settled(head, is_fetching=False) == Onward(None, [again])


def test_a_fetch_that_returns_while_the_head_runs_leaves_it_running() -> None:
    lanes = Lanes()
    head, second = of("1"), of("2")
    lanes.arrive(head)
    lanes.arrive(second)
    lanes.withdraw()
    lanes.settled(second, is_fetching=True)
    lanes.fetched()
    following = of("7")
    assert lanes.arrive(following) is Place.WAIT
    assert lanes.go_on(head) is following


def test_withdrawn_and_settled_while_the_head_still_runs() -> None:
    lanes = Lanes()
    head, second = of("1"), of("2")
    lanes.arrive(head)
    lanes.arrive(second)
    lanes.withdraw()
    assert lanes.settled(second, is_fetching=False) is None
    assert lanes.go_on(head) is None
    assert not lanes.is_any_shut
    assert lanes.arrive(of("2")) is Place.RUN


def test_settling_what_shut_nothing_changes_nothing() -> None:
    lanes = Lanes()
    head = of("1")
    assert lanes.settled(head, is_fetching=False) is None
    lanes.arrive(head)
    assert lanes.settled(head, is_fetching=False) is None


def test_a_message_without_a_key_has_no_lane() -> None:
    with pytest.raises(ValueError, match="key"):
        Lanes().arrive(delivery("1"))


class Broker:
    """One key at a broker: numbers in order; hands out a run of them, takes back, in order."""

    def __init__(self) -> None:
        self.next = 0
        self.waiting: list[int] = []
        self.out: set[int] = set()

    def take(self, count: int) -> list[int]:
        """From the first unfinished on; nothing while an earlier one than it is out and given back
        in part would be skipped."""
        taken: list[int] = []
        while len(taken) < count:
            if self.waiting and all(each < self.waiting[0] for each in self.out | set(taken)):
                taken.append(self.waiting.pop(0))
            elif not self.waiting:
                taken.append(self.next)
                self.next += 1
            else:
                break
        self.out.update(taken)
        return taken

    def back(self, number: int) -> None:
        self.out.discard(number)
        self.waiting = sorted([*self.waiting, number])


class Worker:
    """A model of one: the broker hands out while verdicts are on their way to it."""

    def __init__(self) -> None:
        self.broker, self.lanes = Broker(), Lanes()
        self.running: list[Delivery] = []
        self.verdicts: list[tuple[Delivery, bool]] = []  # not settled yet; True goes back
        self.in_flight: list[int] = []  # handed out, on its way to the worker
        self.done: list[int] = []
        self.steps = 0

    def run(self, each: Delivery) -> None:
        assert not self.running, "one at a time"
        self.running.append(each)

    def go_back(self, deliveries: Iterable[Delivery]) -> None:
        self.verdicts += [(each, True) for each in deliveries]

    def fetch(self) -> None:
        self.steps += 1
        if not self.in_flight:
            self.in_flight.extend(self.broker.take(1 + self.steps % 3))

    def arrive(self) -> None:
        for number in self.in_flight:
            each = of(str(number))
            place = self.lanes.arrive(each)
            if place is Place.RUN:
                self.run(each)
            elif place is Place.BACK:
                self.go_back([each])
        self.in_flight.clear()
        self.lanes.fetched()

    def finish(self) -> None:
        if self.running:
            each = self.running.pop()
            self.done.append(int(each.message.id))
            self.verdicts.append((each, False))
            following = self.lanes.go_on(each)
            if following is not None:
                self.run(following)

    def fail(self) -> None:
        if self.running:
            each = self.running.pop()
            self.go_back([*self.lanes.give_back(each), each])

    def withdraw(self) -> None:
        self.go_back(self.lanes.withdraw())

    def settle(self) -> None:
        batch, self.verdicts = self.verdicts, []
        for each, is_back in batch:
            number = int(each.message.id)
            self.broker.back(number) if is_back else self.broker.out.discard(number)
        for each, _ in batch:
            onward = self.lanes.settled(each, is_fetching=bool(self.in_flight))
            if onward is not None:
                self.go_back(onward.back)
                if onward.run is not None:
                    self.run(onward.run)


ACTS = (Worker.fetch, Worker.arrive, Worker.finish, Worker.fail, Worker.withdraw, Worker.settle)
WELL = (Worker.settle, Worker.arrive, Worker.finish, Worker.fetch)


@given(st.lists(st.sampled_from(ACTS), min_size=25, max_size=80))
def test_whatever_happens_a_key_runs_in_order(acts: list[Callable[[Worker], None]]) -> None:
    worker = Worker()
    for act in [*acts, *WELL * 40]:
        act(worker)
    assert worker.done == sorted(worker.done)
    assert worker.done == list(range(len(worker.done)))
    assert len(worker.done) >= 20, "once nothing goes wrong it gets on"
