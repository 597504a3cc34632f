"""Random programs of workers that handle, fail, die and close: nothing is lost, order holds."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from sqlite_bench import Table, message

from callcast.brokers.sqlite.records import Hand
from callcast.brokers.sqlite.schema import BLOCKED, BUSY
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.ports.broker import Delivery, Part

STEPS = 400


class World:
    """A group, its workers, and what a reader of the log would expect of it."""

    def __init__(self, table: Table, seed: int, *, ordered: bool) -> None:
        self.table = table
        self.dice = random.Random(seed)
        self.is_ordered = ordered
        self.hands: list[Hand] = [table.join() for _ in range(3)]
        self.out: dict[Hand, list[Delivery]] = {hand: [] for hand in self.hands}
        self.sent: list[str] = []
        self.keys: dict[str, str | None] = {}
        self.lines: dict[str, list[str]] = defaultdict(list)  # unfinished, by key, in order
        self.done: Counter[str] = Counter()
        self.dead: set[str] = set()
        self.free: set[str] = set()  # scheduled: not part of the order

    def step(self) -> None:
        act = self.dice.choice(
            [self.publish, self.fetch, self.fetch, self.settle, self.settle, self.wait]
            + ([self.leave, self.die, self.redrive, self.renew] if self.dice.random() < 0.3 else [])
        )
        act()
        self.check_lines()

    def publish(self) -> None:
        batch = []
        for _ in range(self.dice.randint(1, 12)):
            name = f"m{len(self.sent)}"
            self.sent.append(name)
            key = self.dice.choice(["a", "b", "c", f"k{self.dice.randint(0, 20)}", None])
            self.keys[name] = key
            more = {}
            if self.dice.random() < 0.05:
                more["deliver_at"] = self.table.manual.wall() + self.dice.randint(1, 20)
                self.free.add(name)
            elif key is not None:
                self.lines[key].append(name)
            batch.append(message(name, key=key, **more))
        assert not any(self.table.publish(*batch))

    def fetch(self) -> None:
        hand = self.dice.choice(self.hands)
        for delivery in self.table.fetch(hand, self.dice.randint(1, 20)):
            name, key = delivery.message.id, delivery.message.key
            assert name not in self.done
            assert name not in self.dead
            assert all(name != other.message.id for held in self.out.values() for other in held)
            if self.is_ordered and key is not None:
                self.check_order(hand, name, key)
            self.out[hand].append(delivery)

    def check_order(self, hand: Hand, name: str, key: str) -> None:
        for owner, held in self.out.items():
            assert owner is hand or all(one.message.key != key for one in held)
        if name in self.free:
            return
        mine = [one.message.id for one in self.out[hand]]
        before = self.lines[key][: self.lines[key].index(name)]
        assert all(earlier in mine for earlier in before), (name, before, mine)

    def settle(self) -> None:
        """As a worker does: of a key, what is behind a running or failed message does not run."""
        hand = self.dice.choice(self.hands)
        verdicts: list[tuple[Delivery, Outcome]] = []
        kept: list[Delivery] = []
        running: set[str] = set()
        failed: set[str] = set()
        for delivery in self.out[hand]:
            lane = delivery.message.key if self.is_ordered else None
            if lane is not None and lane in failed:
                verdicts.append((delivery, Release()))
            elif (lane is not None and lane in running) or self.dice.random() < 0.25:
                kept.append(delivery)
                running.add(lane or "")
            else:
                verdicts.append((delivery, self.verdict()))
                if lane is not None and isinstance(verdicts[-1][1], Later | Release):
                    failed.add(lane)
        assert not self.table.settle(hand, verdicts).lost
        self.out[hand] = kept
        for delivery, outcome in verdicts:
            self.settled(delivery, outcome)

    def verdict(self) -> Outcome:
        roll = self.dice.random()
        if roll < 0.7:
            return DONE
        if roll < 0.85:
            return Later(self.dice.randint(0, 10))
        if roll < 0.95:
            return Release(self.dice.choice([0.0, 0.0, 3.0]))
        return Dead("dice", park=self.dice.random() < 0.5)

    def settled(self, delivery: Delivery, outcome: Outcome) -> None:
        name, key = delivery.message.id, delivery.message.key
        if outcome is DONE:
            self.done[name] += 1
        elif isinstance(outcome, Dead):
            self.dead.add(name)
        else:
            return
        parks = isinstance(outcome, Dead) and outcome.park and self.is_ordered
        if key is not None and name in self.lines[key] and not parks:
            self.lines[key].remove(name)

    def wait(self) -> None:
        self.live_on(self.dice.choice([0.01, 0.5, 4.0]))

    def live_on(self, seconds: float) -> None:
        """Time passes; workers that live renew what they hold."""
        self.table.pass_time(seconds)
        for hand in self.hands:
            self.table.renew(hand, self.out[hand])

    def renew(self) -> None:
        hand = self.dice.choice(self.hands)
        self.table.renew(hand, [one for one in self.out[hand] if self.dice.random() < 0.5])

    def leave(self) -> None:
        self.table.leave(self.replaced())

    def die(self) -> None:
        hand = self.replaced()
        self.live_on(20)
        self.live_on(20)
        self.table.reap()
        assert not self.table.cx.execute(
            "select 1 from lease where owner = ?", (hand.owner,)
        ).fetchone()

    def replaced(self) -> Hand:
        hand = self.dice.choice(self.hands)
        self.out.pop(hand)
        self.hands.remove(hand)
        self.hands.append(self.table.join())
        self.out[self.hands[-1]] = []
        return hand

    def redrive(self) -> None:
        letters = self.table.join(part=Part.DEAD)
        for letter in self.table.fetch(letters, self.dice.randint(1, 5)):
            name, key = letter.message.id, letter.message.key
            sent = message(name, key=key, group="g")
            assert not any(self.table.publish(sent))
            self.table.rule(letters, [letter], DONE)
            self.dead.discard(name)
            if key is not None and name not in self.lines[key]:
                self.free.add(name)
        self.table.leave(letters)

    def check_lines(self) -> None:
        """The registry of lines says what `held` and the leases say."""
        if not self.is_ordered:
            assert self.table.count("queue") == 0
            return
        out = {one.message.key for held in self.out.values() for one in held}
        rows = self.table.cx.execute(
            "select key, state, visible_at, token from held where key is not null"
            " and state in (1, 2) order by key, seq, hid"
        ).fetchall()
        expected: dict[str, int] = {}
        for key, state, visible_at, _ in rows:
            expected.setdefault(key, BLOCKED if state == 2 else visible_at)
        for key in expected:
            if key in out:
                expected[key] = BUSY
        assert dict(self.table.cx.execute("select key, due from queue").fetchall()) == expected

    def finish(self) -> None:
        """Redrive and handle all that there is."""
        for hand in self.hands:
            self.table.leave(hand)
            self.out[hand] = []
        for _ in range(200):
            self.redrive()
            self.table.pass_time(30)
            count = 0
            for hand in self.hands:
                taken = self.table.fetch(hand)
                assert not self.table.rule(hand, taken, DONE).lost
                for delivery in taken:
                    self.settled(delivery, DONE)
                count += len(taken)
            if not count and not self.table.lag().dead:
                break
        self.table.trim()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ordered", [False, True])
def test_nothing_is_lost_nothing_is_doubled_and_keys_keep_their_order(
    tmp_path: Path, ordered: bool, seed: int
) -> None:
    table = Table(tmp_path, ordered=ordered)
    world = World(table, seed, ordered=ordered)
    for _ in range(STEPS):
        world.step()
    world.finish()
    assert world.done == Counter(world.sent)
    assert [table.count(name) for name in ("held", "queue", "lease", "log_1")] == [0, 0, 0, 0]
    table.close()
