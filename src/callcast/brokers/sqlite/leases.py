"""Lease rows: what is out. Gone means lost; nothing but the row says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from sqlite3 import Connection

from callcast.brokers.sqlite.records import Block, Hand, Slot
from callcast.brokers.sqlite.wire import decode_keys, decode_numbers, encode_list

_INSERT = (
    "insert into lease(source, topic, instance, owner, part, until, first, n, seqs, keys)"
    " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def add(
    cx: Connection, hand: Hand, until: int, *, log: Mapping[int, str | None], hids: Sequence[int]
) -> int:
    """Lease these log rows (with their keys) and held rows to a consumer; the token."""
    group = hand.group
    token = cx.execute(
        _INSERT,
        (
            group.id,
            group.topic,
            hand.instance,
            hand.owner,
            hand.part.value,
            until,
            min(log, default=None),
            len(log) + len(hids),
            encode_list(list(log)),
            encode_list(list(log.values()) if group.is_ordered else []),
        ),
    ).lastrowid
    if hids:
        cx.executemany("update held set token = ? where hid = ?", [(token, hid) for hid in hids])
    return token or 0


def take_off(cx: Connection, block: Block, slots: Collection[Slot]) -> Collection[Slot]:
    """Take these off their lease; those that were still on it."""
    count = len(slots)
    if count == len(block.open):
        # All at once, and nothing of it is settled yet: the usual case costs one statement.
        whole = cx.execute("delete from lease where token = ? and n = ?", (block.token, count))
        if whole.rowcount == 1:
            return slots
    row = cx.execute("select n, seqs, keys from lease where token = ?", (block.token,)).fetchone()
    if row is None:
        return ()
    seqs, keys = decode_numbers(row[1]), decode_keys(row[2])
    left = dict(zip(seqs, keys or [None] * len(seqs), strict=True))
    on_it: list[Slot] = []
    for slot in slots:
        if slot.row in left:
            del left[slot.row]
            on_it.append(slot)
        elif slot.row < 0 and _is_held(cx, -slot.row, block.token):
            on_it.append(slot)
    if on_it:
        _write_rest(cx, block.token, row[0] - len(on_it), left, has_keys=bool(keys))
    return on_it


def _is_held(cx: Connection, hid: int, token: int) -> bool:
    found = cx.execute("select 1 from held where hid = ? and token = ?", (hid, token))
    return found.fetchone() is not None


def _write_rest(  # noqa: PLR0913 - a row's columns
    cx: Connection, token: int, n: int, left: Mapping[int, str | None], *, has_keys: bool
) -> None:
    if n == 0:
        cx.execute("delete from lease where token = ?", (token,))
        return
    keys = list(left.values()) if has_keys else []
    cx.execute(
        "update lease set first = ?, n = ?, seqs = ?, keys = ? where token = ?",
        (min(left, default=None), n, encode_list(list(left)), encode_list(keys), token),
    )
