"""Lease rows: what is out. Gone means lost; nothing but the row says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from sqlite3 import Connection

from msgspec import Struct

from callcast.brokers.sqlite.records import Block, Hand, Slot, Turn
from callcast.brokers.sqlite.wire import decode_keys, decode_numbers, encode_list

_INSERT = (
    "insert into lease(source, topic, instance, owner, part, until, first, n, seqs, keys)"
    " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def add(turn: Turn, hand: Hand, *, log: Mapping[int, str | None], hids: Sequence[int]) -> int:
    """Lease these log rows (with their keys) and held rows to a consumer; the token."""
    group = hand.group
    token = turn.cx.execute(
        _INSERT,
        (
            group.id,
            group.topic,
            hand.instance,
            hand.owner,
            hand.part.value,
            turn.now + hand.lease,
            min(log, default=None),
            len(log) + len(hids),
            encode_list(list(log)),
            encode_list(list(log.values()) if group.is_ordered else []),
        ),
    ).lastrowid
    if hids:
        turn.cx.executemany(
            "update held set token = ? where hid = ?", [(token, hid) for hid in hids]
        )
    return token or 0


def take_off(cx: Connection, block: Block, slots: Collection[Slot]) -> Collection[Slot]:
    """Take these off their lease; those that were still on it."""
    count = len(slots)
    if count == len(block.open):
        # All at once, and nothing of it is settled yet: the usual case costs one statement.
        whole = cx.execute("delete from lease where token = ? and n = ?", (block.token, count))
        if whole.rowcount == 1:
            return slots
    rest = _Rest.read(cx, block.token)
    if rest is None:
        return ()
    on_it = [slot for slot in slots if rest.lets_go(cx, slot)]
    if on_it:
        rest.write(cx)
    return on_it


class _Rest(Struct):
    """What is still on a lease, as the file says."""

    token: int
    n: int
    log: dict[int, str | None]
    has_keys: bool

    @classmethod
    def read(cls, cx: Connection, token: int) -> _Rest | None:
        """The lease, or None when it is gone."""
        row = cx.execute("select n, seqs, keys from lease where token = ?", (token,)).fetchone()
        if row is None:
            return None
        seqs, keys = decode_numbers(row[1]), decode_keys(row[2])
        log = dict(zip(seqs, keys or [None] * len(seqs), strict=True))
        return cls(token, row[0], log, bool(keys))

    def lets_go(self, cx: Connection, slot: Slot) -> bool:
        """Take one off; False when it is not on it."""
        if slot.row in self.log:
            del self.log[slot.row]
        elif slot.row > 0 or not _is_held(cx, -slot.row, self.token):
            return False
        self.n -= 1
        return True

    def write(self, cx: Connection) -> None:
        """Write what is left, or end the lease."""
        if self.n == 0:
            cx.execute("delete from lease where token = ?", (self.token,))
            return
        keys = list(self.log.values()) if self.has_keys else []
        cx.execute(
            "update lease set first = ?, n = ?, seqs = ?, keys = ? where token = ?",
            (
                min(self.log, default=None),
                self.n,
                encode_list(list(self.log)),
                encode_list(keys),
                self.token,
            ),
        )


def _is_held(cx: Connection, hid: int, token: int) -> bool:
    found = cx.execute("select 1 from held where hid = ? and token = ?", (hid, token))
    return found.fetchone() is not None
