"""Where the messages of one group wait: a pile when order does not matter, lanes when it does.

Pure: told the time, in monotonic seconds.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from callcast.core.message import Message

SUSPECT_CRASHES = 2
"""From so many crashes on a message is a suspect."""
KEY_OUT_MAX = 8
"""So many deliveries of one key may be out while handling them is slow."""
KEY_SLOW = 0.020
"""Seconds per message above which a key is slow."""


class Entry(Struct, eq=False, gc=False):
    """A message on its way through one group. Changed by its queue and its shelf only."""

    seq: int
    """Its number in the order of publishing."""
    place: int
    """Its place in its lane: its number, unless it joined later or was redriven."""
    message: Message
    since: float
    """When it was published."""
    due: float = 0.0
    """Not before this time."""
    round: int = 0
    crashes: int = 0
    token: int = 0
    """Of the lease it is out on; 0 while it waits. A lease with another token has been lost."""
    out_at: float = 0.0
    """When it was last handed out."""


class Owner:
    """What the shelves know of one consumer: keys whose next message only it may have."""

    __slots__ = ("heads",)

    def __init__(self) -> None:
        self.heads: list[tuple[int, int, Lane]] = []


class Shelf(Protocol):
    """Where entries wait until they are handed out."""

    def add(self, entry: Entry, now: float) -> None:
        """Take in a published message."""
        ...

    def put_back(self, entry: Entry, now: float) -> None:
        """Take back what was out and is not finished; `entry.due` says from when on."""
        ...

    def ended(self, entry: Entry, now: float) -> None:
        """Note that a delivery of this entry has ended, finished or not; after `put_back`."""
        ...

    def tick(self, now: float) -> None:
        """Move on what has become due."""
        ...

    def next(self, owner: Owner, now: float) -> Entry | None:
        """Hand out one entry, or None when there is none for this owner."""
        ...

    def delayed(self, now: float) -> list[Entry]:
        """What waits for a time, or behind something that does."""
        ...

    @property
    def next_due(self) -> float:
        """When `tick` has something to do next; infinity when it has not."""
        ...


class Pile:
    """Unordered: what came back first, then what is fresh, oldest first; suspects last."""

    def __init__(self) -> None:
        self._returned: list[tuple[int, Entry]] = []
        self._fresh: deque[Entry] = deque()
        self._suspects: deque[Entry] = deque()
        self._later: list[tuple[float, int, Entry]] = []

    def add(self, entry: Entry, now: float) -> None:
        """Take in a published message."""
        if entry.due > now:
            heapq.heappush(self._later, (entry.due, entry.seq, entry))
        else:
            self._fresh.append(entry)

    def put_back(self, entry: Entry, now: float) -> None:
        """Take back what was out and is not finished."""
        if entry.due > now:
            heapq.heappush(self._later, (entry.due, entry.seq, entry))
        elif entry.crashes >= SUSPECT_CRASHES:
            self._suspects.append(entry)
        else:
            heapq.heappush(self._returned, (entry.seq, entry))

    def ended(self, entry: Entry, now: float) -> None:
        """Nothing hangs on it here."""

    def tick(self, now: float) -> None:
        """Move on what has become due."""
        while self._later and self._later[0][0] <= now:
            self.put_back(heapq.heappop(self._later)[2], now)

    def next(self, owner: Owner, now: float) -> Entry | None:
        """Hand out one entry; all owners are alike here."""
        del owner, now
        if self._returned:
            return heapq.heappop(self._returned)[1]
        if self._fresh:
            return self._fresh.popleft()
        return self._suspects.popleft() if self._suspects else None

    def several(self, limit: int) -> list[Entry]:
        """Hand out up to so many, none of them a suspect."""
        taken: list[Entry] = []
        while self._returned and len(taken) < limit:
            taken.append(heapq.heappop(self._returned)[1])
        fresh = self._fresh
        count = min(limit - len(taken), len(fresh))
        taken += [fresh.popleft() for _ in range(count)]
        return taken

    @property
    def has_suspects(self) -> bool:
        """Whether `next` has a suspect, behind all others."""
        return bool(self._suspects)

    def delayed(self, now: float) -> list[Entry]:
        """What waits for a time."""
        self.tick(now)
        return [entry for _, _, entry in self._later]

    @property
    def next_due(self) -> float:
        """When the next one becomes due."""
        return self._later[0][0] if self._later else math.inf


class Lane:
    """One key of an ordered group. Changed by `Lanes` only.

    | its head                                | where the lane is found            |
    |-----------------------------------------|------------------------------------|
    | none, parked, older than one that is out | nowhere, until that changes        |
    | too many out while the key is slow      | nowhere, until one of them ends    |
    | not yet due                             | by its due time                    |
    | due, others of the key are out          | with their owner                   |
    | due, none is out                        | with everybody                     |
    """

    __slots__ = (
        "batch", "key", "newest", "out", "owner", "parked", "span", "ticket", "touched", "waiting",
    )  # fmt: skip

    def __init__(self, key: str | int) -> None:
        self.key: str | int = key
        self.waiting: deque[Entry] = deque()  # by place
        self.parked: dict[tuple[str, str], int] = {}  # dead letters that hold it, and their places
        self.owner: Owner | None = None
        self.out: int = 0
        self.newest: int = -1  # the highest place that is out
        self.ticket: int = 0  # of the one place where it is found; an older ticket is void
        self.touched: float = 0.0  # when a delivery of it last ended
        self.span: float = math.inf  # how long that one, with those that ended with it, took
        self.batch: int = 1  # how many ended with it

    @property
    def is_slow(self) -> bool:
        """Whether its last message took long; a key that has not shown yet counts as slow."""
        return self.span / self.batch > KEY_SLOW

    def is_blocked(self) -> bool:
        """Whether its head must wait for something other than time."""
        head = self.waiting[0].place
        if self.parked and head > min(self.parked.values()):
            return True
        return self.out > 0 and (head < self.newest or (self.out >= KEY_OUT_MAX and self.is_slow))

    def is_stuck(self, now: float) -> bool:
        """Whether all that waits here waits for a time, or for a redrive."""
        if not self.waiting:
            return False
        head = self.waiting[0]
        return head.due > now or bool(self.parked and head.place > min(self.parked.values()))


class Lanes:
    """Ordered: the messages of one key leave in their order, to one owner at a time.

    A message without a key has a lane of its own. A message that is scheduled (`deliver_at`)
    joins its lane when it is due: until then it holds nobody.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers  # shared with the whole broker, so that places never repeat
        self._lanes: dict[str | int, Lane] = {}
        self._heads: list[tuple[int, int, Lane]] = []  # anybody's, by the place of the head
        self._later: list[tuple[float, int, int, Lane]] = []  # by the due time of the head
        self._scheduled: list[tuple[float, int, Entry]] = []
        self._parked: dict[tuple[str, str], Lane] = {}

    def add(self, entry: Entry, now: float) -> None:
        """Take in a published message; a parked dead letter that is redriven goes first."""
        identity = (entry.message.source, entry.message.id)
        lane = self._parked.pop(identity, None) if self._parked else None
        if lane is not None:
            entry.place = lane.parked.pop(identity)
            self._insert(lane, entry)
            self._place(lane, now)
        elif entry.due > now:
            heapq.heappush(self._scheduled, (entry.due, entry.seq, entry))
        else:
            self._join(entry, now)

    def hold(self, entry: Entry, now: float) -> None:
        """Take in what was put off before; not yet due, it holds its lane."""
        self._join(entry, now)

    def put_back(self, entry: Entry, now: float) -> None:
        """Take back what was out, into its place; `ended` follows and lets the lane go on."""
        del now
        self._insert(self._lanes[_key(entry)], entry)

    def ended(self, entry: Entry, now: float) -> None:
        """Let the lane go on, or forget it when it is empty."""
        lane = self._lanes[_key(entry)]
        if now > lane.touched:
            lane.span, lane.batch = now - max(lane.touched, entry.out_at), 0
        lane.touched = now
        lane.batch += 1
        lane.out -= 1
        if lane.out == 0:
            lane.owner, lane.newest = None, -1
        self._place(lane, now)

    def park(self, entry: Entry) -> None:
        """Hold the lane of this dead entry, which is still out; without a key it holds nobody."""
        if entry.message.key is None:
            return
        lane = self._lanes[_key(entry)]
        identity = (entry.message.source, entry.message.id)
        lane.parked[identity] = entry.place
        self._parked[identity] = lane

    def unpark(self, key: str, now: float) -> int:
        """Let a held lane go on; how many it held."""
        lane = self._lanes.get(key)
        if lane is None or not lane.parked:
            return 0
        first = min(lane.parked.values())
        for identity in lane.parked:
            del self._parked[identity]
        lane.parked.clear()
        held = sum(entry.place > first for entry in lane.waiting)
        self._place(lane, now)
        return held

    def tick(self, now: float) -> None:
        """Move on what has become due."""
        while self._scheduled and self._scheduled[0][0] <= now:
            entry = heapq.heappop(self._scheduled)[2]
            entry.place = next(self._numbers)
            self._join(entry, now)
        while self._later and self._later[0][0] <= now:
            _, _, ticket, lane = heapq.heappop(self._later)
            if ticket == lane.ticket:
                self._place(lane, now)

    def next(self, owner: Owner, now: float) -> Entry | None:
        """Hand out the oldest head that this owner may have."""
        while True:
            heads = self._heads
            if not heads or (owner.heads and owner.heads[0] < heads[0]):
                heads = owner.heads
            if not heads:
                return None
            _, ticket, lane = heapq.heappop(heads)
            if ticket == lane.ticket:
                break
        entry = lane.waiting.popleft()
        lane.owner, lane.newest = owner, entry.place
        lane.out += 1
        self._place(lane, now)
        return entry

    def delayed(self, now: float) -> list[Entry]:
        """What waits for a time, or behind something that does, or behind a parked letter."""
        self.tick(now)
        found = [entry for _, _, entry in self._scheduled]
        for lane in self._lanes.values():
            if lane.is_stuck(now):
                found.extend(lane.waiting)
        return found

    @property
    def next_due(self) -> float:
        """When the next one becomes due."""
        scheduled = self._scheduled[0][0] if self._scheduled else math.inf
        return min(scheduled, self._later[0][0]) if self._later else scheduled

    def _join(self, entry: Entry, now: float) -> None:
        key = _key(entry)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        lane.waiting.append(entry)
        if len(lane.waiting) == 1:
            self._place(lane, now)

    def _insert(self, lane: Lane, entry: Entry) -> None:
        bisect.insort(lane.waiting, entry, key=lambda waiting: waiting.place)

    def _place(self, lane: Lane, now: float) -> None:
        """Put the lane where its head can be found, as the table of `Lane` says."""
        lane.ticket += 1
        if not lane.waiting:
            if not lane.out and not lane.parked:
                del self._lanes[lane.key]
            return
        if lane.is_blocked():
            return
        head = lane.waiting[0]
        if head.due > now:
            heapq.heappush(self._later, (head.due, head.place, lane.ticket, lane))
        elif lane.owner is not None:
            heapq.heappush(lane.owner.heads, (head.place, lane.ticket, lane))
        else:
            heapq.heappush(self._heads, (head.place, lane.ticket, lane))


def _key(entry: Entry) -> str | int:
    key = entry.message.key
    return entry.seq if key is None else key
