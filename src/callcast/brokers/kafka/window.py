"""One partition in the hands of one member: what is fed, out, settled; what may be committed.

    base            head                top              position
     |    settled    |  open and settled |  fed, waiting  |  not read yet
     +---------------+-------------------+----------------+---------------> offsets
     committed       first that is open  highest handed out

Pure. Only an unbroken run of settled offsets is committed: a gap would skip the unsettled one after
a restart. What is settled beyond the gap is noted in the commit's metadata (see `marks`), as is
what is out: before a delivery is handed over it is noted durably, so that a death counts.

| nobody has crashed | a horizon is noted: below it everything may be out, so that most            |
|                    | deliveries need no commit of their own                                      |
| somebody has       | each offset that is out is noted by itself: neighbours are not suspected    |
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from callcast.brokers.kafka.marks import PLAIN, SETTLED, Mark, Marks, Run, encode, joined
from callcast.brokers.kafka.wire import Record
from callcast.policies.shelves import Entry, Lanes, Owner, Pile

SPAN_MAX = 1_000
"""So many offsets behind the head may be handed out or settled; then the partition waits for it."""
HORIZON = 2_000
"""Offsets that are noted as possibly out, beyond the highest that is."""
IDLE = 0.5
"""Seconds without anything out after which the horizon is taken back: a death then is no crash."""
TELL = 2.0
"""Seconds between two words that what is out of a partition which moves is still being finished."""
SILENCE = 10.0
"""Seconds without an accepted word after which it is given up: who gets it waits no longer."""


class Item(Entry, eq=False, gc=False, kw_only=True):
    """An entry that lies at an offset."""

    window: Window
    record: Record
    due_wall: float = 0.0
    """The same as `due` on the wall clock, for what was `Later`; 0 otherwise."""
    held_since: float = 0.0
    """Ordered: when it first became `Later` here."""
    is_settling: bool = False
    """Its verdict is being carried out: its lease does not end meanwhile."""
    size: int = 0
    """Its body's bytes."""


class Commit(Struct, frozen=True, gc=False):
    """What is to be written for one partition."""

    window: Window
    offset: int
    metadata: str
    horizon: int
    """Absolute; offsets below it need no commit of their own once this one is accepted."""
    out: frozenset[int]
    at: float = 0.0
    is_last: bool = False
    """This member has let the partition go once it is accepted."""


class Window:
    """One assigned partition. Changed by its `Desk` only."""

    def __init__(self, topic: str, partition: int, *, marks: Marks, is_ordered: bool) -> None:
        self.topic = topic
        self.partition = partition
        self.base: int = marks.base
        self.position: int = marks.base
        self.top: int = marks.base
        self.is_closing: bool = False
        self.size: int = 0
        """Bytes of the bodies that wait or are out."""
        self.out: int = 0
        """How many are with workers."""
        self.open: dict[int, Item] = {}
        self.waiting: deque[Item] = deque()
        """What is fed and lies too far behind the head."""
        self.shelf: Lanes | Pile = Lanes(iter(())) if is_ordered else Pile()
        """Where its entries wait: `lanes` or `pile`, whichever there is."""
        self.lanes: Lanes | None = self.shelf if isinstance(self.shelf, Lanes) else None
        self.pile: Pile | None = self.shelf if isinstance(self.shelf, Pile) else None
        self.owners: dict[object, Owner] = {}
        self.is_dirty: bool = marks.end > marks.base or marks.handed_on > 0
        self.is_handed_on: bool = False
        """Whether another member gets it once what is out has come back."""
        self.wait_until: float = math.inf
        """The latest that this is waited for."""
        self.is_gone: bool = False
        """Handed on, and nothing is out: it is another member's now."""
        self._words = 0  # how often it was said that it moves
        self._word_at = -math.inf  # when the last was said that was accepted
        self._marks = marks
        self._settled_top = marks.base
        self._noted = 0  # open ones that have crashed or were put off
        self._crashed = 0  # open ones that have crashed
        self._durable_horizon = 0
        self._durable_out: frozenset[int] = frozenset()
        self._quiet_since = -math.inf

    def __repr__(self) -> str:
        return f"{self.topic}/{self.partition}"

    @property
    def may_have_more(self) -> bool:
        """Whether anything waits here that could be handed out."""
        return not self.is_closing and len(self.open) > self.out

    @property
    def head(self) -> int:
        """The first offset that is not settled; the position where all are."""
        return next(iter(self.open), self.position)

    @property
    def is_exact(self) -> bool:
        """Whether each offset that is out is noted by itself."""
        return self._crashed > 0 or self._has_unread_marks or self.is_handed_on

    @property
    def _has_unread_marks(self) -> bool:
        return self.position < self._marks.end

    def read(self, offset: int) -> Mark | None:
        """Note that the record here was read; what is noted of it, or None: it is not to wait."""
        if offset < self.position:
            return None  # read again after a pause
        self.position = offset + 1
        mark = self._marks.at(offset) if offset < self._marks.end else PLAIN
        if mark.is_settled:
            self._settled_top = max(self._settled_top, offset + 1)
            return None
        return mark

    def feed(self, item: Item) -> None:
        """Take in what was read."""
        self.open[item.seq] = item
        self.size += item.size
        if item.crashes or item.round:
            self._crashed += item.crashes > 0
            self._noted += 1
        self.waiting.append(item)

    def passed(self, offset: int) -> None:
        """Note that the log was read to here, past markers and what was compacted away."""
        if offset > self.position:
            self.position = offset
            self.is_dirty = True
        if self._has_unread_marks:
            self._marks.cut(self.position)
            self.is_dirty = True

    def admit(self, now: float) -> bool:
        """Let wait on the shelf what is near enough to the head; whether there was any."""
        limit = self.head + SPAN_MAX
        waiting = self.waiting
        if not waiting or waiting[0].seq >= limit:
            return False
        while waiting and waiting[0].seq < limit:
            item = waiting.popleft()
            if self.lanes is not None and item.due > now:
                self.lanes.hold(item, now)
            elif self.pile is not None and item.crashes:
                self.pile.put_back(item, now)
            else:
                self.shelf.add(item, now)
        return True

    def owner(self, hand: object) -> Owner:
        """What the shelf knows of one consumer."""
        owner = self.owners.get(hand)
        if owner is None:
            owner = self.owners[hand] = Owner()
        return owner

    def handed_out(self, item: Item) -> bool:
        """Note that it is out; whether that is durable already."""
        self.out += 1
        offset = item.seq
        if offset >= self.top:
            self.top = offset + 1
        if offset < self._durable_horizon or offset in self._durable_out:
            return True
        self.is_dirty = True
        return False

    def finished(self, item: Item, now: float) -> None:
        """Note that it is settled."""
        offset = item.seq
        del self.open[offset]
        self.size -= item.size
        if item.crashes or item.round:
            self._crashed -= item.crashes > 0
            self._noted -= 1
        if offset >= self._settled_top:
            self._settled_top = offset + 1
        self._came_back(now)

    def given_back(self, item: Item, now: float, change: Callable[[Item], None]) -> None:
        """Note that it is not out any more, with what changes about it."""
        self._crashed -= item.crashes > 0
        self._noted -= item.crashes > 0 or item.round > 0
        change(item)
        self._crashed += item.crashes > 0
        self._noted += item.crashes > 0 or item.round > 0
        self._came_back(now)

    def _came_back(self, now: float) -> None:
        self.out -= 1
        self._quiet_since = now
        self.is_dirty = True

    # Committing

    def wants_commit(self, now: float) -> bool:
        """Whether there is anything to commit."""
        if self.is_handed_on:
            is_due = self.is_dirty or not self.out or now >= self._word_at + TELL
            return is_due and not self.is_gone
        if self.is_dirty or self.head > self.base:
            return True
        return self._durable_horizon > 0 and not self.out and now >= self._quiet_since + IDLE

    def hand_on(self, now: float, until: float) -> None:
        """Hand out nothing more: another member gets it once what is out has come back."""
        self.is_closing = True
        self.is_handed_on = True
        self.wait_until = until
        self._word_at = now

    def is_silent(self, now: float) -> bool:
        """Whether nobody can know any more that something is out of what was handed on."""
        return now >= self._word_at + SILENCE

    def plan(self, now: float) -> Commit:
        """What to commit now."""
        head = self.head
        is_last = self.is_handed_on and not self.out
        horizon = 0
        if not self.is_exact and (self.out or now < self._quiet_since + IDLE):
            horizon = max(self.top, head) + HORIZON
        runs = [] if self._is_plain(head) else joined(self._runs(head))
        out = frozenset(item.seq for item in self.open.values() if item.token and self.is_exact)
        # What this commit takes back is taken back at once: it may be carried out at any time now.
        self._durable_horizon = min(self._durable_horizon, horizon)
        self._durable_out &= out
        self.is_dirty = False
        self._words += self.is_handed_on
        text = encode(max(0, horizon - head), runs, handed_on=0 if is_last else self._words)
        return Commit(self, head, text, horizon, out, now, is_last)

    def committed(self, commit: Commit) -> None:
        """Note that this is durable."""
        self.base = max(self.base, commit.offset)
        self._durable_horizon = commit.horizon
        self._durable_out = commit.out
        self._word_at = commit.at
        self.is_gone = commit.is_last

    def failed(self) -> None:
        """Note that a commit was not accepted."""
        self.is_dirty = True

    def _is_plain(self, head: int) -> bool:
        return not self._noted and not self.is_exact and self._settled_top <= head

    def _runs(self, head: int) -> Iterator[Run]:
        """What is so about the offsets from the head on, as far as anything is."""
        at = head
        end = max(self._settled_top, self._last_noted())
        if self._has_unread_marks:
            end = self.position
        for offset, item in self.open.items():
            if offset >= end:
                break
            if offset > at:
                yield Run(offset - at, SETTLED)
            yield Run(1, _mark(item, is_exact=self.is_exact))
            at = offset + 1
        if at < end:
            yield Run(end - at, SETTLED)
        # Nobody has come to read these yet, and the next member is to know of them all the same.
        yield from self._marks.rest(self.position)

    def _last_noted(self) -> int:
        if not self._noted and not self.is_exact:
            return 0
        return next(
            (
                offset + 1
                for offset, item in reversed(self.open.items())
                if item.crashes or item.round or item.token
            ),
            0,
        )


def _mark(item: Item, *, is_exact: bool) -> Mark:
    is_out = is_exact and item.token != 0
    if not (is_out or item.crashes or item.round):
        return PLAIN
    # Rounded up to what is written, so that it is never early.
    due = 0.0 if item.token else math.ceil(item.due_wall * 1_000) / 1_000
    return Mark(is_out=is_out, crashes=item.crashes, round=item.round, due=due)
