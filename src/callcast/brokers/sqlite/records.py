"""What the writer's thread remembers of what it handed out."""

from __future__ import annotations

from collections import OrderedDict
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

PACES_MAX = 10_000
"""So many keys' paces are remembered by a consumer; the one settled longest ago is forgotten."""


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
    paces: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    """How long the last delivery of a key took, in microseconds."""
    is_closed: bool = False

    def room(self, key: str, out: int) -> int | None:
        """How many more of a key may leave; None is any number.

        A busy key leaves room for others: it waits at the broker while eight are out and slow.
        """
        if self.paces.get(key, KEY_SLOW + 1) <= KEY_SLOW:
            return None
        return max(0, KEY_OUT_MAX - out)

    def pace(self, key: str, took: int) -> None:
        """Note how long the last delivery of a key took."""
        self.paces[key] = took
        self.paces.move_to_end(key)
        if len(self.paces) > PACES_MAX:
            self.paces.popitem(last=False)
