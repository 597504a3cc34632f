"""One member of a group: its partitions, who holds what of them, and what becomes of it.

Pure: told the time, in monotonic seconds. One delivery goes this way:

| from     | event                      | to                                 | crashes | round |
|----------|----------------------------|------------------------------------|---------|-------|
| waiting  | `take`                     | out, on a lease                    |         |       |
| out      | `Done`                     | settled                            |         |       |
| out      | `Release(after)`           | waiting, due after that time       |         |       |
| out      | `Later`, ordered           | waiting, holds its key             | 0       | + 1   |
| out      | `Later`, unordered; `Dead` | settling: a copy is on its way     |         |       |
| settling | the copy is stored         | settled                            |         |       |
| settling | the copy is refused        | out                                |         |       |
| out      | its lease ends             | waiting                            | + 1     |       |
| out      | its consumer closes        | waiting                            |         |       |
| waiting  | its partition moves        | gone, to whoever gets it next      |         |       |
| out      | its partition moves        | out, and its heir waits for it     |         |       |
| any      | its partition was lost     | gone, to whoever gets it next      |         |       |

Not thread-safe: its `Member` asks it under a lock.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from callcast.brokers.kafka import shelved, wire
from callcast.brokers.kafka.hands import Hand, Lease
from callcast.brokers.kafka.marks import Marks
from callcast.brokers.kafka.window import Commit, Item, Window
from callcast.brokers.kafka.wire import Arrival, Record
from callcast.core.outcome import Dead, Done, Later, Outcome, Release, noted
from callcast.ports.broker import Delivery, Source

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""

HOLD_MAX = 1_200.0
"""Seconds for which an ordered key is held by `Later`, in all, while one member has it."""


class Move(Struct, frozen=True, eq=False):
    """A verdict that needs a copy elsewhere before it holds."""

    delivery: Delivery
    lease: Lease
    outcome: Later | Dead


class Desk:
    """All partitions of one member."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.is_paused = False
        self.wall_offset: float = 0.0
        """The wall clock less the monotonic one; set by the member."""
        self.windows: dict[Place, Window] = {}
        self.handed_on: dict[Place, Window] = {}
        """Partitions that are another member's as soon as what is out of them has come back."""
        self._hands: list[Hand] = []
        self._tokens = itertools.count(1)

    # Partitions

    def assign(self, place: Place, marks: Marks) -> None:
        """Take over a partition at what is committed."""
        self.windows[place] = Window(*place, marks=marks, is_ordered=self.source.ordered)

    def read(self, record: Record) -> Arrival:
        """What a record says. Not under the lock: it takes longer than all the rest."""
        return wire.read(record, self.source.topic)

    def feed(self, place: Place, arrivals: Iterable[Arrival], *, now: float, wall: float) -> None:
        """Take in what was read of one partition, in its order."""
        window = self.windows.get(place)
        if window is None:
            return
        for arrival in arrivals:
            record = arrival.record
            mark = window.read(record.offset)
            if mark is None:
                continue
            due = mark.due or arrival.due
            item = Item(
                seq=record.offset,
                place=record.offset,
                message=arrival.message,
                since=record.time,
                due=now + (due - wall) if due else 0.0,
                round=mark.round or arrival.round,
                crashes=mark.crashes,
                window=window,
                record=record,
                due_wall=due,
                size=len(record.value or b""),
            )
            window.feed(item)

    def passed(self, place: Place, offset: int) -> None:
        """Note that the partition was read up to this offset."""
        window = self.windows.get(place)
        if window is not None:
            window.passed(offset)

    def hand_on(self, places: Iterable[Place], now: float, until: float) -> list[Commit]:
        """Let these partitions move, and give what is to be committed before they do.

        What is out of them is finished and settled as ever, until then at the latest.
        """
        plans: list[Commit] = []
        for place in places:
            window = self.windows.pop(place, None)
            if window is not None:
                window.hand_on(now, until)
                self.handed_on[place] = window
                plans.append(window.plan(now))
        return plans

    def drop(self, places: Iterable[Place]) -> None:
        """Forget these partitions, handed on or not; what is still out of them is lost."""
        for place in places:
            for windows in (self.windows, self.handed_on):
                window = windows.pop(place, None)
                if window is not None:
                    self._forget(window)

    # Consumers

    def join(self) -> Hand:
        """Let one more consumer take part."""
        hand = Hand()
        self._hands.append(hand)
        return hand

    def leave(self, hand: Hand, now: float) -> None:
        """Take back what a consumer holds, uncounted, and forget it."""
        if hand not in self._hands:
            return
        self.tick(now)
        self._hands.remove(hand)
        for lease in hand.leases.values():
            self._give_back(lease.item, now, now)
        hand.leases.clear()
        for window in self.windows.values():
            window.owners.pop(hand, None)

    def take(
        self, hand: Hand, limit: int, *, lease: float, now: float
    ) -> tuple[list[Delivery], bool]:
        """Hand out up to `limit`, each on a lease; and whether that is durable already.

        No suspects of an unordered source, unless `limit` is 0: then one of them, if anything.
        What is not durable must be handed over only after the next commit.
        """
        self.tick(now)
        if self.is_paused or hand not in self._hands:
            return [], True
        windows = [window for window in self.windows.values() if window.may_have_more]
        if limit or self.source.ordered:
            items = shelved.pick(windows, hand, limit, now=now)
        else:
            items = shelved.suspect(windows, hand, now)
        is_durable = True
        taken: list[Delivery] = []
        for item in items:
            item.token = token = next(self._tokens)
            item.out_at = now
            hand.leases[token] = handle = Lease(item, token, now + lease)
            taken.append(Delivery(item.message, item.round, item.crashes, handle))
            is_durable &= item.window.handed_out(item)
        if taken:
            hand.check_at = min(hand.check_at, now + lease)
        return taken, is_durable

    @property
    def has_suspects(self) -> bool:
        """Whether anything waits that `take` hands out alone."""
        return any(
            window.pile is not None and window.pile.has_suspects
            for window in self.windows.values()
            if not window.is_closing
        )

    def settle(
        self, hand: Hand, verdicts: Sequence[tuple[Delivery, Outcome]], now: float
    ) -> tuple[list[Move], list[Delivery]]:
        """Carry out what needs no copy; what does need one, and those that are lost."""
        self.tick(now)
        moves: list[Move] = []
        lost: list[Delivery] = []
        for delivery, outcome in verdicts:
            lease = delivery.handle
            if (
                not isinstance(lease, Lease)
                or hand.leases.get(lease.token) is not lease
                or lease.item.is_settling
            ):
                lost.append(delivery)
            elif isinstance(outcome, Done):
                del hand.leases[lease.token]
                self._finish(lease.item, now)
            elif isinstance(outcome, Release):
                del hand.leases[lease.token]
                self._give_back(lease.item, now + outcome.after, now)
            elif (later := self._held_by(lease.item, outcome, now)) is not None:
                del hand.leases[lease.token]
                self._put_off(lease.item, later, now)
            else:
                lease.item.is_settling = True
                moves.append(Move(delivery, lease, self._limited(lease.item, outcome, now)))
        return moves, lost

    def moved(self, hand: Hand, move: Move, *, is_stored: bool, now: float) -> bool:
        """Note what became of the copy; whether the delivery was still ours."""
        lease = move.lease
        if hand.leases.get(lease.token) is not lease:
            return False
        lease.item.is_settling = False
        if is_stored:
            del hand.leases[lease.token]
            self._finish(lease.item, now)
        return True

    def renew(self, hand: Hand, deliveries: Iterable[Delivery], until: float) -> None:
        """Extend these leases; what is lost stays lost."""
        for delivery in deliveries:
            lease = delivery.handle
            if isinstance(lease, Lease) and hand.leases.get(lease.token) is lease:
                lease.until = until

    # Time

    def tick(self, now: float) -> None:
        """Take back what is out on a lease that has ended, each a crash; move on what is due."""
        for hand in self._hands:
            if hand.check_at <= now:
                self._expire(hand, now)
        for window in self.windows.values():
            if window.waiting:
                window.admit(now)
            window.shelf.tick(now)
        if self.handed_on:
            self._mind_handed_on(now)

    @property
    def next_due(self) -> float:
        """When something may become available by itself; infinity when nothing will."""
        checks = min((hand.check_at for hand in self._hands), default=math.inf)
        shelves = (window.shelf.next_due for window in self.windows.values())
        return min(checks, min(shelves, default=math.inf))

    # Committing

    def plans(self, now: float) -> list[Commit]:
        """What is to be committed now."""
        windows = itertools.chain(self.windows.values(), self.handed_on.values())
        return [window.plan(now) for window in windows if window.wants_commit(now)]

    # Inside

    def _mind_handed_on(self, now: float) -> None:
        """Let go what is through, and what is out for too long."""
        for place, window in list(self.handed_on.items()):
            if window.is_gone or window.is_silent(now):
                self.drop([place])
            elif window.out and now >= window.wait_until:
                for hand, lease in self._leases_of(window):
                    del hand.leases[lease.token]
                    self._crashed(lease.item, now)

    def _leases_of(self, window: Window) -> list[tuple[Hand, Lease]]:
        return [
            (hand, lease)
            for hand in self._hands
            for lease in hand.leases.values()
            if lease.item.window is window
        ]

    def _forget(self, window: Window) -> None:
        for hand, lease in self._leases_of(window):
            del hand.leases[lease.token]
        window.is_closing = True
        # The items know their window, and the collector does not see them.
        window.open.clear()
        window.waiting.clear()

    def _held_by(self, item: Item, outcome: Later | Dead, now: float) -> Later | None:
        """What its key waits for here, and no longer than `HOLD_MAX` in all."""
        if isinstance(outcome, Dead) or not self.source.ordered:
            return None
        item.held_since = item.held_since or now
        return outcome if now + outcome.delay - item.held_since <= HOLD_MAX else None

    def _limited(self, item: Item, outcome: Later | Dead, now: float) -> Later | Dead:
        """What is to be copied elsewhere: what was held for too long is dead."""
        if isinstance(outcome, Dead) or not self.source.ordered:
            return outcome
        return Dead(
            f"its key was held for {now - item.held_since:.0f} s by retries, and the next one is"
            f" beyond {HOLD_MAX:.0f} s: {outcome.reason}",
            outcome.notes,
        )

    def _put_off(self, item: Item, later: Later, now: float) -> None:
        def put_off(item: Item) -> None:
            item.round += 1
            item.crashes = 0
            item.message = noted(item.message, later.notes)
            # Its record's time is on the wall clock, and so is what a successor is told.
            item.due_wall = self.wall(now) + later.delay

        item.window.given_back(item, now, put_off)
        self._back_on_shelf(item, now + later.delay, now)

    def wall(self, now: float) -> float:
        """The wall-clock time of a monotonic one."""
        return now + self.wall_offset

    def _finish(self, item: Item, now: float) -> None:
        item.token = 0
        item.window.finished(item, now)
        item.window.shelf.ended(item, now)

    def _give_back(self, item: Item, due: float, now: float) -> None:
        item.window.given_back(item, now, _unchanged)
        self._back_on_shelf(item, due, now)

    def _crashed(self, item: Item, now: float) -> None:
        item.window.given_back(item, now, _one_more_crash)
        self._back_on_shelf(item, now, now)

    def _back_on_shelf(self, item: Item, due: float, now: float) -> None:
        item.token = 0
        item.is_settling = False  # its next lease is another one's, whatever becomes of the copy
        item.due = due
        item.window.shelf.put_back(item, now)
        item.window.shelf.ended(item, now)

    def _expire(self, hand: Hand, now: float) -> None:
        hand.check_at = math.inf
        for lease in list(hand.leases.values()):
            if lease.until <= now and not lease.item.is_settling:
                del hand.leases[lease.token]
                self._crashed(lease.item, now)
            else:
                hand.check_at = min(hand.check_at, max(lease.until, now + 0.1))


def _unchanged(item: Item) -> None:
    del item


def _one_more_crash(item: Item) -> None:
    item.crashes += 1
