"""One group's view of a topic: what waits, what is out on which lease, what is dead.

Pure: told the time, in monotonic seconds. One delivery goes this way:

| from    | event                | to                                       | crashes | round |
|---------|----------------------|------------------------------------------|---------|-------|
| waiting | `take`               | out, on a lease                          |         |       |
| out     | `Done`               | gone                                     |         |       |
| out     | `Later(delay)`       | waiting, due after the delay             | 0       | + 1   |
| out     | `Release(after)`     | waiting, due after that time             |         |       |
| out     | `Dead`               | waiting among the `Letters`              |         |       |
| out     | its lease ends       | waiting                                  | + 1     |       |
| out     | its consumer closes  | waiting                                  |         |       |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from callcast.core.message import Message, is_same
from callcast.core.outcome import Dead, Done, Later, Outcome, Release, dead_letter, noted
from callcast.policies.shelves import Entry, Lanes, Owner, Pile, Shelf
from callcast.ports.broker import Delivery, Lag, Part, Source


class Lease(Struct, eq=False, gc=False):
    """The handle of a delivery. `renew` writes `until` from any thread; nothing else changes."""

    entry: Entry
    token: int
    until: float


class Hand(Owner):
    """What one consumer holds."""

    __slots__ = ("check_at", "leases")

    def __init__(self) -> None:
        super().__init__()
        self.leases: dict[int, Lease] = {}
        self.check_at: float = math.inf  # no lease ends earlier; renewing only makes them later


class Queue:
    """The messages of one source. Everything happens at the moment `now` that it is told."""

    def __init__(self, source: Source, numbers: Iterator[int], *, letters: bool = True) -> None:
        self.source = source
        self.is_paused = False
        self.dead: Letters | None = Letters(source, numbers) if letters else None
        self._numbers = numbers
        self._lanes = Lanes(numbers) if source.ordered else None
        self._shelf: Shelf = Pile() if self._lanes is None else self._lanes
        self._open: dict[int, Entry] = {}  # all that is not finished, oldest first
        self._hands: list[Hand] = []
        self._tokens = itertools.count(1)

    def add(self, message: Message, now: float, *, due: float = 0.0) -> Entry:
        """Take in a published message, to be handed out from `due` on."""
        self._shelf.tick(now)  # what is due already goes before it
        seq = next(self._numbers)
        entry = self._open[seq] = Entry(seq, seq, message, now, due)
        self._shelf.add(entry, now)
        return entry

    def join(self) -> Hand:
        """Let one more consumer take part."""
        hand = Hand()
        self._hands.append(hand)
        return hand

    def leave(self, hand: Hand, now: float) -> None:
        """Take back what a consumer holds, uncounted, and forget it."""
        if hand in self._hands:
            self.tick(now)
            self._hands.remove(hand)
            for lease in hand.leases.values():
                self._give_back(lease.entry, now, now)
            hand.leases.clear()

    def take(self, hand: Hand, limit: int, *, lease: float, now: float) -> list[Delivery]:
        """Hand out up to `limit` entries, each on a lease of so many seconds."""
        self.tick(now)
        taken: list[Delivery] = []
        if self.is_paused or hand not in self._hands:
            return taken
        while len(taken) < limit:
            entry = self._shelf.next(hand, now)
            if entry is None:
                break
            entry.token = token = next(self._tokens)
            entry.out_at = now
            hand.leases[token] = handle = Lease(entry, token, now + lease)
            taken.append(Delivery(entry.message, entry.round, entry.crashes, handle))
        if taken:
            hand.check_at = min(hand.check_at, now + lease)
        return taken

    def settle(
        self, hand: Hand, verdicts: Sequence[tuple[Delivery, Outcome]], now: float
    ) -> list[Delivery]:
        """Carry out the verdicts; those whose lease is lost come back."""
        self.tick(now)
        lost: list[Delivery] = []
        for delivery, outcome in verdicts:
            lease = delivery.handle
            if isinstance(lease, Lease) and hand.leases.pop(lease.token, None) is lease:
                self._carry_out(lease.entry, outcome, now)
            else:
                lost.append(delivery)
        return lost

    def tick(self, now: float) -> None:
        """Take back what is out on a lease that has ended, each a crash; move on what is due."""
        for hand in self._hands:
            if hand.check_at <= now:
                self._expire(hand, now)
        self._shelf.tick(now)

    def unpark(self, key: str, now: float) -> int:
        """Let a key go on without its dead letter; how many it held."""
        return 0 if self._lanes is None else self._lanes.unpark(key, now)

    @property
    def next_due(self) -> float:
        """When something may become available by itself; infinity when nothing will."""
        checks = min((hand.check_at for hand in self._hands), default=math.inf)
        return min(checks, self._shelf.next_due)

    def lag(self, now: float) -> Lag:
        """How far this group is behind."""
        self.tick(now)
        dead = [] if self.dead is None else self.dead.unfinished()
        leased = sum(len(hand.leases) for hand in self._hands)
        delayed = len(self._shelf.delayed(now))
        first = itertools.islice(self._open.values(), 1)
        oldest = min((entry.since for entry in itertools.chain(first, dead)), default=now)
        return Lag(
            ready=len(self._open) - leased - delayed,
            leased=leased,
            delayed=delayed,
            dead=len(dead),
            oldest=now - oldest,
            paused=self.is_paused,
        )

    def waiting(self, part: Part, now: float) -> list[Entry]:
        """What waits in one part, oldest first. Nothing is consumed or counted."""
        if part is Part.DEAD:
            return [] if self.dead is None else self.dead.unfinished()
        self.tick(now)
        delayed = {entry.seq for entry in self._shelf.delayed(now)}
        wanted = part is Part.DELAYED
        return [
            entry
            for entry in self._open.values()
            if not entry.token and (entry.seq in delayed) is wanted
        ]

    def unfinished(self) -> list[Entry]:
        """All that waits or is out, oldest first."""
        return list(self._open.values())

    def _carry_out(self, entry: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Done):
            self._finish(entry, now)
        elif isinstance(outcome, Release):
            self._give_back(entry, now + outcome.after, now)
        elif isinstance(outcome, Later):
            entry.round += 1
            entry.crashes = 0
            entry.message = noted(entry.message, outcome.notes)
            self._give_back(entry, now + outcome.delay, now)
        else:
            self._bury(entry, outcome, now)

    def _bury(self, entry: Entry, verdict: Dead, now: float) -> None:
        if verdict.park and self._lanes is not None:
            self._lanes.park(entry)
        self._finish(entry, now)
        if self.dead is not None:
            self.dead.bury(entry, verdict, now)

    def _finish(self, entry: Entry, now: float) -> None:
        entry.token = 0
        del self._open[entry.seq]
        self._shelf.ended(entry, now)

    def _give_back(self, entry: Entry, due: float, now: float) -> None:
        entry.token = 0
        entry.due = due
        self._shelf.put_back(entry, now)
        self._shelf.ended(entry, now)

    def _expire(self, hand: Hand, now: float) -> None:
        hand.check_at = math.inf
        for lease in list(hand.leases.values()):
            if lease.until <= now:
                del hand.leases[lease.token]
                lease.entry.crashes += 1
                self._give_back(lease.entry, now, now)
            else:
                hand.check_at = min(hand.check_at, lease.until)


class Letters(Queue):
    """The dead letters of a group, one for each message: one that dies again replaces its own.

    Not while somebody has that one in hand: a redriver is about to take it away, and with it would
    go the message that died since.
    """

    def __init__(self, source: Source, numbers: Iterator[int]) -> None:
        super().__init__(Source(source.topic, source.group), numbers, letters=False)
        self._latest: dict[tuple[str, str], Entry] = {}  # by source and id

    def bury(self, entry: Entry, verdict: Dead, now: float) -> None:
        """Take in a message that has died."""
        dead = dead_letter(entry.message, verdict)
        letter = self._latest.get((dead.source, dead.id))
        if letter is None or letter.token or not is_same(letter.message, dead):
            letter = self.add(dead, now)
            letter.since = entry.since
            self._latest[dead.source, dead.id] = letter
        letter.message, letter.round = dead, entry.round

    def _finish(self, entry: Entry, now: float) -> None:
        super()._finish(entry, now)
        identity = (entry.message.source, entry.message.id)
        if self._latest.get(identity) is entry:
            del self._latest[identity]

    def _bury(self, entry: Entry, verdict: Dead, now: float) -> None:
        self._finish(entry, now)
        self.bury(entry, verdict, now)
