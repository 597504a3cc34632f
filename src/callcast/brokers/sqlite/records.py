"""What the writer's thread remembers of what it handed out."""

from __future__ import annotations

from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import NamedTuple

from msgspec import Struct

from callcast.brokers.sqlite.dbclock import SECOND
from callcast.ports.broker import Part

KEY_OUT_MAX = 8
"""So many deliveries of one key may be out while handling them is slow."""

KEY_SLOW = SECOND // 50
"""A key whose last delivery took longer than these 20 ms is slow; an unknown one counts as slow."""

QUICK_MAX = 10_000
"""So many quick keys are remembered by a consumer; the one known longest is forgotten."""


class Turn(NamedTuple):
    """One job's part of a write transaction."""

    cx: Connection
    now: int
    """The database's time, in microseconds."""


class Group(Struct, frozen=True):
    """A source as the file knows it."""

    id: int
    topic: int
    name: str
    """``topic/group``, for messages."""
    is_ordered: bool

    @property
    def log(self) -> str:
        """The table of the topic's messages."""
        return f"log_{self.topic}"


class Slot(Struct, eq=False):
    """The handle of one delivery: where its message lies and which lease it is on.

    Changed in the writer's thread only, after a commit.
    """

    block: Block | None
    """None once it is settled or lost."""
    row: int
    """A number in the log, or, negative, a row of `held`."""
    key: str | None
    since: int


class Block:
    """One lease row and what is still open of it. Changed in the writer's thread only."""

    __slots__ = ("open", "token")

    def __init__(self, token: int) -> None:
        self.token: int = token
        self.open: set[Slot] = set()

    def end(self) -> None:
        """Forget all that is open: settled, or lost."""
        for slot in self.open:
            slot.block = None
        self.open.clear()


@dataclass(eq=False, slots=True)
class Hand:
    """One consumer, as the writer's thread knows it."""

    instance: str
    owner: int
    group: Group
    part: Part
    lease: int
    """Microseconds."""
    blocks: dict[int, Block] = field(default_factory=dict[int, Block])
    """By token."""
    quick: dict[str, None] = field(default_factory=dict[str, None])
    """The keys whose last delivery was not slow, the one known longest first."""
    is_closed: bool = False

    def room(self, key: str, out: int) -> int | None:
        """How many more of a key may leave; None is any number.

        A busy key leaves room for others: it waits at the broker while eight are out and slow.
        """
        return None if key in self.quick else max(0, KEY_OUT_MAX - out)

    def pace(self, key: str, took: int) -> None:
        """Note how long the last delivery of a key took, in microseconds."""
        if took > KEY_SLOW:
            self.quick.pop(key, None)
        elif key not in self.quick:
            self.quick[key] = None
            if len(self.quick) > QUICK_MAX:
                del self.quick[next(iter(self.quick))]
