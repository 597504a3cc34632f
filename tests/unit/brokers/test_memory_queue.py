"""Whatever happens to a queue, nothing is lost and no key is out of order."""

import itertools
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callcast.brokers.memory.queue import Hand, Queue
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.ports.broker import Delivery, Source

LEASE = 10.0
OUTCOMES: list[Outcome] = [
    DONE,
    Later(3.0),
    Later(0.0),
    Release(),
    Release(2.0),
    Dead("for the test"),
]


class QueueMachine(RuleBasedStateMachine):
    """Publishes, fetches, settles, waits and closes at random; the model is a few sets."""

    is_ordered = True

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(Source("t", "g", ordered=self.is_ordered), itertools.count())
        self.now = 0.0
        self.hands: list[Hand] = []
        self.unfinished: dict[int, str] = {}  # number to key
        self.out: dict[int, tuple[Hand, Delivery, float]] = {}
        self.counts: dict[int, tuple[int, int]] = {}  # rounds and crashes
        self.count = 0
        self.dead = 0

    @rule(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
    def publish(self, keys: list[str]) -> None:
        for key in keys:
            number, self.count = self.count, self.count + 1
            self.queue.add(Message(str(number), "s", "t", "t", b"", key), self.now)
            self.unfinished[number] = key
            self.counts[number] = (0, 0)

    @precondition(lambda self: len(self.hands) < 3)
    @rule()
    def join(self) -> None:
        self.hands.append(self.queue.join())

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), limit=st.integers(1, 6))
    def take(self, data: Any, limit: int) -> None:
        hand = data.draw(st.sampled_from(self.hands))
        for delivery in self.queue.take(hand, limit, lease=LEASE, now=self.now):
            number = int(delivery.message.id)
            assert number in self.unfinished
            assert number not in self.out, "it is out already"
            assert (delivery.round, delivery.crashes) == self.counts[number]
            if self.is_ordered:
                for other, key in self.unfinished.items():
                    if key == delivery.message.key and other < number:
                        assert self.out[other][0] is hand, f"{number} overtakes {other}"
                    if key == delivery.message.key and other > number:
                        assert other not in self.out, f"{number} comes while {other} is out"
            self.out[number] = (hand, delivery, self.now + LEASE)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def settle(self, data: Any, outcome: Outcome) -> None:
        number = data.draw(st.sampled_from(sorted(self.out)))
        hand, delivery, _ = self.out.pop(number)
        assert self.queue.settle(hand, [(delivery, outcome)], self.now) == []
        assert self.queue.settle(hand, [(delivery, DONE)], self.now) == [delivery]
        if isinstance(outcome, Later):
            self.counts[number] = (self.counts[number][0] + 1, 0)
        elif not isinstance(outcome, Release):
            self.dead += isinstance(outcome, Dead)
            del self.unfinished[number]

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def renew(self, data: Any) -> None:
        number = data.draw(st.sampled_from(sorted(self.out)))
        hand, delivery, _ = self.out[number]
        delivery.handle.until = self.now + LEASE
        self.out[number] = (hand, delivery, self.now + LEASE)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.queue.tick(self.now)
        for number, (_, _, until) in list(self.out.items()):
            if until <= self.now:
                del self.out[number]
                rounds, crashes = self.counts[number]
                self.counts[number] = (rounds, crashes + 1)

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        hand = data.draw(st.sampled_from(self.hands))
        self.hands.remove(hand)
        self.queue.leave(hand, self.now)
        self.out = {number: held for number, held in self.out.items() if held[0] is not hand}

    @invariant()
    def nothing_is_lost(self) -> None:
        lag = self.queue.lag(self.now)
        assert lag.ready + lag.leased + lag.delayed == len(self.unfinished)
        assert (lag.leased, lag.dead) == (len(self.out), self.dead)

    def teardown(self) -> None:
        """In the end somebody gets all of it, each key in its order."""
        for hand in self.hands:
            self.queue.leave(hand, self.now)
        self.now += 100.0
        hand = self.queue.join()
        rest: list[int] = []
        while taken := self.queue.take(hand, 100, lease=LEASE, now=self.now):
            rest += [int(delivery.message.id) for delivery in taken]
            self.queue.settle(hand, [(delivery, DONE) for delivery in taken], self.now)
        assert sorted(rest) == sorted(self.unfinished)
        for key in "abc" if self.is_ordered else "":
            mine = [number for number in rest if self.unfinished[number] == key]
            assert mine == sorted(mine)


class PileMachine(QueueMachine):
    is_ordered = False


TestOrdered = QueueMachine.TestCase
TestOrdered.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestUnordered = PileMachine.TestCase
TestUnordered.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
