"""A partition of Kafka through everything that can happen to it, by dice; a failing seed replays."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_parts import LEASE, Partition, record

from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Delivery

KEYS = ("a", "b", "c", None)
STEPS = 60
LATE = 0.2
"""Seconds by which a due time is rounded up when it is noted."""


class Run:
    """One partition, and what is known of each of its messages."""

    def __init__(self, seed: int, *, ordered: bool) -> None:
        self.dice = Random(seed)
        self.ordered = ordered
        self.keys = {at * 2: self.dice.choice(KEYS) for at in range(self.dice.randrange(1, 25))}
        records = [record(offset, key) for offset, key in self.keys.items()]
        self.partition = Partition(records, 2 * len(records) + 1, ordered=ordered)
        self.partition.now = 1_000.0
        self.open = set(self.keys)
        self.out: dict[int, Delivery] = {}
        self.told: dict[int, tuple[int, float]] = {}  # round and due time that were committed
        self.put_off: dict[int, tuple[int, float]] = {}  # the same, as soon as it was settled

    def take(self, limit: int) -> None:
        """Fetch, and check what comes: in its order, not early, in no earlier round."""
        now = self.partition.now
        taken = self.partition.take(limit)
        for delivery in taken:
            offset = int(delivery.message.id)
            assert offset in self.open, "what is settled does not come again to one member"
            assert offset not in self.out, "nothing is with two workers"
            round_, due = self.put_off.get(offset, (0, 0.0))
            assert now >= due
            assert delivery.round >= round_
            self.out[offset] = delivery
        if self.ordered:
            for delivery in taken:
                self.check_order(int(delivery.message.id))

    def check_order(self, offset: int) -> None:
        key = self.keys[offset]
        if key is not None:
            before = {at for at in self.open if self.keys[at] == key and at < offset}
            assert before <= set(self.out), "a message overtook one of its key"

    def settle(self) -> None:
        """Give some of what is out a verdict."""
        for offset, delivery in list(self.out.items()):
            if self.dice.random() < 0.5:
                del self.out[offset]
                self.verdict(offset, delivery)

    def verdict(self, offset: int, delivery: Delivery) -> None:
        desk, hand, now = self.partition.desk, self.partition.hand, self.partition.now
        outcome = self.dice.choice([DONE, DONE, Release(), Later(5.0), Dead("broken")])
        moves, lost = desk.settle(hand, [(delivery, outcome)], now)
        assert lost == []
        for move in moves:
            is_stored = self.dice.random() < 0.8
            assert desk.moved(hand, move, is_stored=is_stored, now=now)
            if not is_stored:
                self.out[offset] = delivery
                return
        if moves or outcome is DONE:
            self.open.discard(offset)
        elif isinstance(outcome, Later):
            self.put_off[offset] = (delivery.round + 1, now + outcome.delay)

    def commit(self) -> None:
        self.partition.commit()
        self.told = dict(self.put_off)
        assert self.partition.offset <= min(self.open, default=self.partition.end)

    def pass_time(self) -> None:
        """Some seconds, or so many that leases end."""
        self.partition.now += self.dice.choice([0.1, 1.0, 6.0, LEASE])
        self.partition.desk.tick(self.partition.now)
        held = {lease.item.seq for lease in self.partition.hand.leases.values()}
        self.out = {offset: one for offset, one in self.out.items() if offset in held}

    def die(self) -> None:
        """Another member takes over: what was not committed is not known to it."""
        if self.dice.random() < 0.3:
            self.partition.let_go()
            self.told = dict(self.put_off)
        else:
            if self.dice.random() < 0.5:
                self.move()
            self.partition.take_over(read=self.dice.choice([0, 2, None]))
        self.out = {}
        self.put_off = {offset: (round_, due) for offset, (round_, due) in self.told.items()}
        settled = set(self.keys) - self.open
        self.open = {offset for offset in self.keys if offset >= self.partition.offset}
        self.open -= {at for at in settled if self.partition.window._marks.at(at).is_settled}

    def move(self) -> None:
        """It moves, and what is out is settled here; whether all of it is noted is up to chance."""
        self.partition.hand_on()
        self.told = dict(self.put_off)
        for _ in range(self.dice.randrange(4)):
            self.settle()
            if self.dice.random() < 0.7:
                self.partition.finish()
                self.told = dict(self.put_off)
                assert ("h" in self.partition.metadata) is bool(self.out)

    def step(self) -> None:
        roll = self.dice.random()
        if roll < 0.35:
            self.take(self.dice.randrange(1, 6))
        elif roll < 0.65:
            self.settle()
        elif roll < 0.8:
            self.commit()
        elif roll < 0.92:
            self.pass_time()
        else:
            self.die()
        if self.dice.random() < 0.3:
            self.partition.read()

    def finish(self) -> None:
        """Everything works from now on: all that is left gets done."""
        self.partition.read()
        for _ in range(400):
            if not self.open:
                break
            self.partition.now += 1.0 + LATE
            self.take(3)
            if not self.out and not self.ordered:
                suspects = self.partition.take(0)
                self.out |= {int(one.message.id): one for one in suspects}
            self.partition.settle(self.out.values())
            self.open -= set(self.out)
            self.out = {}
        self.partition.now += 1.0
        self.partition.commit()
        assert self.open == set()
        assert (self.partition.offset, self.partition.metadata) == (self.partition.end, "")


@settings(deadline=None, max_examples=150)
@given(st.integers(0), st.booleans())
def test_whatever_happens_nothing_is_lost_early_or_overtaken(seed: int, ordered: bool) -> None:
    run = Run(seed, ordered=ordered)
    for _ in range(STEPS):
        run.step()
    run.finish()
