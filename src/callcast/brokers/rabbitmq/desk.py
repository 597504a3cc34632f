"""One process's share of a group: what the broker has delivered here, and who has it on a lease.

Pure: told the time, in monotonic seconds. The broker knows no leases, so they are kept here; a
process that dies gives back all that it had by its connection's end.

| from      | event                             | to                                  | crashes |
|-----------|-----------------------------------|-------------------------------------|---------|
| broker    | `arrive`                          | waiting                             |         |
| waiting   | `take`                            | out, on a lease                     |         |
| out       | `Done`                            | gone; acknowledged                  |         |
| out       | `Release`                         | waiting, due after its time         |         |
| out       | `Later`, ordered                  | waiting, its key behind it; round+1 | 0       |
| out       | `Later`, `Dead`                   | moving: a copy goes elsewhere       |         |
| moving    | `moved`                           | gone; acknowledged                  |         |
| moving    | `stayed`: the copy was refused    | out, on the same lease              |         |
| out       | its lease ends, unordered         | broker, which counts it             | + 1     |
| out       | its lease ends, ordered           | waiting, in its place               | + 1     |
| out       | its consumer closes               | waiting                             |         |
| waiting   | `give_back`                       | broker, pardoned                    |         |
| out       | `void`, ordered                   | broker, which counts it             |         |
| out       | `void`, unordered                 | orphaned; the broker has it too     |         |
| orphaned  | `adopt`: it comes back here       | out, on the same lease              |         |
| orphaned  | any verdict, its lease ends       | broker: it comes as a new one       |         |
| waiting   | `void`: the channel is lost       | broker, which counts it             |         |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct

from callcast.brokers.rabbitmq.wire import Arrived, Raw
from callcast.core.outcome import Dead, Done, Later, Outcome, Release, noted
from callcast.policies.shelves import SUSPECT_CRASHES, Entry, Lanes, Owner, Pile, Shelf
from callcast.ports.broker import Delivery

HOLD_MAX = 1_200.0
"""Seconds for which an ordered key is held by `Later`, in all: below RabbitMQ's 30 minutes."""


class Held(Entry, kw_only=True, eq=False, gc=False):
    """A message that the broker has delivered here."""

    tag: int
    """By which it is acknowledged, on the channel of its queue."""
    queue: str
    generation: int
    """Of the channel: tags of an earlier one are void."""
    count: int = 0
    """How often the queue has had it back."""
    published: float = 0.0
    """Wall clock."""
    raw: Raw | None = None
    held_since: float = 0.0
    """Ordered: when it first became `Later` here."""


class Lease(Struct, eq=False, gc=False):
    """The handle of a delivery. `renew` writes `until` from any thread; nothing else changes."""

    entry: Held
    token: int
    until: float


class Hand(Owner):
    """What one consumer holds."""

    __slots__ = ("check_at", "lease", "leases")

    def __init__(self, lease: float) -> None:
        super().__init__()
        self.lease: float = lease
        self.leases: dict[int, Lease] = {}
        self.check_at: float = math.inf  # no lease ends earlier; renewing only makes them later


Move: TypeAlias = tuple[Delivery, Lease, Later | Dead]


@dataclass(slots=True)
class Settled:
    """What is to be done about a batch of verdicts."""

    done: list[Held] = field(default_factory=list[Held])
    """To be acknowledged."""
    moves: list[Move] = field(default_factory=list[Move])
    """To be copied elsewhere, then acknowledged: say `moved` or `stayed`."""
    lost: list[Delivery] = field(default_factory=list[Delivery])
    frees: bool = False
    """Whether something here can be handed out now that could not before."""


class Desk:
    """What waits and what is out. Everything happens at the moment `now` that it is told."""

    def __init__(self, *, ordered: bool, holds: bool = True) -> None:
        self.is_paused = False
        self._lanes = Lanes(itertools.count()) if ordered else None
        self._holds = holds and ordered
        self._shelf: Shelf = Pile() if self._lanes is None else self._lanes
        self._numbers = itertools.count(1)
        self._tokens = itertools.count(1)
        self._hands: list[Hand] = []
        self._here: dict[int, Held] = {}  # all that waits or is out, by number; oldest first
        self._orphans: dict[tuple[str, str, str], tuple[Hand, Lease]] = {}  # by queue, source, id

    # What comes and goes at the broker's side

    def arrive(self, arrived: Arrived, stub: Stub, now: float) -> None:
        """Take in what was delivered; `stub` is the broker's side of it."""
        seq = next(self._numbers)
        entry = self._here[seq] = Held(
            seq,
            seq,
            arrived.message,
            now,
            stub.due,
            arrived.round,
            stub.crashes,
            tag=stub.tag,
            queue=stub.queue,
            generation=stub.generation,
            count=arrived.count,
            published=arrived.published,
            raw=arrived.raw,
        )
        if stub.crashes >= SUSPECT_CRASHES and self._lanes is None and stub.due <= now:
            self._shelf.put_back(entry, now)  # suspects go last
        else:
            self._shelf.add(entry, now)

    def void(self) -> None:
        """Forget everything: the channel is lost, and the broker has all of it back.

        What handlers still run comes back soon, most often to this process: see `adopt`.
        """
        self._orphans.clear()
        for hand in self._hands:
            if self._lanes is None:
                out = hand.leases.values()
                self._orphans.update((_name(one.entry), (hand, one)) for one in out)
            hand.leases.clear()
            hand.heads.clear()
            hand.check_at = math.inf
        self._here.clear()
        self._clear_shelf()

    def adopt(self, arrived: Arrived, stub: Stub, now: float) -> bool:
        """Whether this came back while its handler runs here: then it is not run a second time.

        A channel that ends under a slow handler (the consumer timeout, a lost connection) would
        otherwise start it again and again.
        """
        message = arrived.message
        name = (stub.queue, message.source, message.id)
        if not self._orphans or not message.id or name not in self._orphans:
            return False
        hand, lease = self._orphans.pop(name)
        if lease.until <= now or hand not in self._hands:
            return False
        entry = lease.entry
        entry.tag, entry.generation, entry.count = stub.tag, stub.generation, arrived.count
        self._here[entry.seq] = entry
        hand.leases[lease.token] = lease
        hand.check_at = min(hand.check_at, lease.until)
        return True

    def give_back(self) -> list[Held]:
        """Let go of all that waits, to the broker; what is out stays out.

        An ordered group gives back nothing while anything is out: another worker would get the
        next of a key whose first still runs here.
        """
        if not self.can_give_back:
            return []
        gone = [entry for entry in self._here.values() if not entry.token]
        for entry in gone:
            del self._here[entry.seq]
        for hand in self._hands:
            hand.heads.clear()
        self._clear_shelf()
        return gone

    # What comes and goes at the workers' side

    def join(self, hand: Hand) -> None:
        """Let one more consumer take part."""
        self._hands.append(hand)

    def leave(self, hand: Hand, now: float) -> bool:
        """Take back what a consumer holds, uncounted, and forget it; whether nobody is left."""
        if hand in self._hands:
            self._hands.remove(hand)
            for lease in hand.leases.values():
                self._put_back(lease.entry, now, now)
            hand.leases.clear()
        return not self._hands

    def take(self, hand: Hand, limit: int, now: float) -> list[Delivery]:
        """Hand out up to `limit` messages, each on a lease; a suspect of an ordered group alone.

        Not before what stands before it of its own key, and nothing behind it.
        """
        taken: list[Delivery] = []
        if self.is_paused or hand not in self._hands:
            return taken
        shelf, leases, until = self._shelf, hand.leases, now + hand.lease
        shelf.tick(now)
        while len(taken) < limit:
            entry = shelf.next(hand, now)
            if entry is None:
                break
            assert isinstance(entry, Held)  # noqa: S101 - this shelf holds no other
            is_suspect = self._lanes is not None and entry.crashes >= SUSPECT_CRASHES
            if is_suspect and taken:
                self._put_back(entry, now, now)
                break
            entry.token = token = next(self._tokens)
            entry.out_at = now
            leases[token] = handle = Lease(entry, token, until)
            taken.append(Delivery(entry.message, entry.round, entry.crashes, handle))
            if is_suspect:
                break
        if taken:
            hand.check_at = min(hand.check_at, until)
        return taken

    def settle(
        self, hand: Hand, verdicts: Iterable[tuple[Delivery, Outcome]], now: float
    ) -> Settled:
        """Sort the verdicts; what needs no broker is carried out at once."""
        result = Settled(frees=self._lanes is not None)
        for delivery, outcome in verdicts:
            lease = delivery.handle
            if not isinstance(lease, Lease) or hand.leases.pop(lease.token, None) is not lease:
                self._disown(lease)
                result.lost.append(delivery)
            elif isinstance(outcome, Done):
                self._finish(lease.entry, now)
                result.done.append(lease.entry)
            elif isinstance(outcome, Release):
                self._put_back(lease.entry, now + outcome.after, now)
                result.frees = True
            else:
                result.moves += self._held_or_moving(delivery, lease, outcome, now=now)
        return result

    def moved(self, lease: Lease, now: float) -> Held:
        """Its copy is safe: forget it; acknowledge what is returned."""
        self._finish(lease.entry, now)
        return lease.entry

    def stayed(self, hand: Hand, lease: Lease) -> None:
        """Its copy was refused: it is still the worker's, on its lease."""
        if lease.entry.seq in self._here and hand in self._hands:
            hand.leases[lease.token] = lease
            hand.check_at = min(hand.check_at, lease.until)

    def is_here(self, lease: Lease) -> bool:
        """Whether its channel is still the one that it came by."""
        return self._here.get(lease.entry.seq) is lease.entry

    def expire(self, now: float) -> list[Held]:
        """Take back what is out on a lease that has ended; what the broker is to have back."""
        back: list[Held] = []
        for hand in self._hands:
            if hand.check_at <= now:
                hand.check_at = math.inf
                for lease in list(hand.leases.values()):
                    if lease.until > now:
                        hand.check_at = min(hand.check_at, lease.until)
                        continue
                    del hand.leases[lease.token]
                    if self._lanes is None:
                        self._finish(lease.entry, now)
                        back.append(lease.entry)
                    else:
                        lease.entry.crashes += 1
                        self._put_back(lease.entry, now, now)
        return back

    # What there is

    @property
    def can_give_back(self) -> bool:
        """Whether what waits may go elsewhere."""
        return self._lanes is None or not any(entry.token for entry in self._here.values())

    @property
    def lease_min(self) -> float:
        """The shortest lease of those that take part; infinity without any."""
        return min((hand.lease for hand in self._hands), default=math.inf)

    def delayed(self, now: float) -> int:
        """How many wait here for a time."""
        return len(self._shelf.delayed(now))

    @property
    def next_due(self) -> float:
        """When something here becomes due; infinity when nothing will."""
        return self._shelf.next_due

    @property
    def leased(self) -> int:
        """How many are out."""
        return sum(entry.token > 0 for entry in self._here.values())

    def waiting(self, now: float) -> tuple[list[Held], list[Held]]:
        """What is ready here, and what waits for a time; both oldest first."""
        self._shelf.tick(now)
        later = {entry.seq for entry in self._shelf.delayed(now)}
        idle = [entry for entry in self._here.values() if not entry.token]
        ready = [entry for entry in idle if entry.seq not in later]
        return ready, [entry for entry in idle if entry.seq in later]

    @property
    def held(self) -> Sequence[Held]:
        """All that is here, waiting or out."""
        return list(self._here.values())

    @property
    def is_empty(self) -> bool:
        """Nothing waits and nothing is out."""
        return not self._here

    # Inside

    def _disown(self, lease: object) -> None:
        """Its handler has ended: what comes back is to be run again."""
        if self._orphans and isinstance(lease, Lease):
            name = _name(lease.entry)
            if name in self._orphans and self._orphans[name][1] is lease:
                del self._orphans[name]

    def _clear_shelf(self) -> None:
        self._lanes = None if self._lanes is None else Lanes(itertools.count())
        self._shelf = Pile() if self._lanes is None else self._lanes

    def _held_or_moving(
        self, delivery: Delivery, lease: Lease, outcome: Later | Dead, *, now: float
    ) -> list[Move]:
        entry = lease.entry
        if not isinstance(outcome, Later) or not self._holds:
            return [(delivery, lease, outcome)]
        since = entry.held_since or now
        if now + outcome.delay - since > HOLD_MAX:
            reason = (
                f"its key was held for {now - since:.0f} s by retries, and the next one is beyond"
                f" {HOLD_MAX:.0f} s: {outcome.reason}"
            )
            return [(delivery, lease, Dead(reason, outcome.notes))]
        entry.held_since = since
        entry.round += 1
        entry.crashes = 0
        entry.message = noted(entry.message, outcome.notes)
        self._put_back(entry, now + outcome.delay, now)
        return []

    def _finish(self, entry: Held, now: float) -> None:
        entry.token = 0
        if self._here.pop(entry.seq, None) is not None:
            self._shelf.ended(entry, now)

    def _put_back(self, entry: Held, due: float, now: float) -> None:
        entry.token = 0
        entry.due = due
        if entry.seq in self._here:
            self._shelf.put_back(entry, now)
            self._shelf.ended(entry, now)


def _name(entry: Held) -> tuple[str, str, str]:
    return (entry.queue, entry.message.source, entry.message.id)


class Stub(Struct, frozen=True, gc=False):
    """The broker's side of a delivery."""

    tag: int
    queue: str
    generation: int
    crashes: int
    due: float = 0.0
    """Not to be handed out before; monotonic."""
