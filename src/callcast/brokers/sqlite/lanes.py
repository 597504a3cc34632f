"""The order of keys: who stands at the head of each key's line, and when it may leave.

`queue` has a row for each key with held messages:

| `due`     | why                                            | what changes it                     |
|-----------|------------------------------------------------|-------------------------------------|
| a time    | nothing of the key is out; its head is due then | a fetch takes the head             |
| `BUSY`    | something of the key is out with some consumer | the settle or reclaim of the last   |
| `BLOCKED` | a parked dead letter is at the head            | its redrive, or `unpark`            |
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from callcast.brokers.sqlite.records import Group, Turn
from callcast.brokers.sqlite.schema import BLOCKED, BUSY, IN_LINE, PARKED, SCHEDULED, WAITING
from callcast.brokers.sqlite.wire import decode_keys

_HEAD = (
    f"select state, visible_at from held where source = ? and key = ? and {IN_LINE}"  # noqa: S608
    " order by seq, hid limit 1"
)
_OUT = (
    f"select 1 from held where source = ? and key = ? and {IN_LINE} and token is not null"  # noqa: S608
    " limit 1"
)

_DUE = (
    f"select hid, key from held where source = ? and state = {SCHEDULED} and token is null"  # noqa: S608
    " and visible_at <= ? order by visible_at, hid"
)
_JOIN = f"update held set state = {WAITING}, seq = ? where hid = ?"  # noqa: S608


def join(cx: Connection, group: Group, key: str) -> None:
    """Note that a key has a line; `free` must follow in the same transaction."""
    cx.execute("insert or ignore into queue values (?, ?, ?)", (group.id, key, BUSY))


def free(cx: Connection, group: Group, keys: Iterable[str]) -> bool:
    """Say anew when the heads of these keys may leave; whether any of them has a line."""
    if cx.execute("select 1 from queue where source = ? limit 1", (group.id,)).fetchone() is None:
        return False
    out: set[str | None] | None = None
    found = False
    for key in keys:
        row = cx.execute(
            "select due from queue where source = ? and key = ?", (group.id, key)
        ).fetchone()
        if row is None:
            continue
        found = True
        if out is None:
            out = out_keys(cx, group)
        due = _due(cx, group, key, is_out=key in out)
        if due is None:
            cx.execute("delete from queue where source = ? and key = ?", (group.id, key))
        elif due != row[0]:
            cx.execute(
                "update queue set due = ? where source = ? and key = ?", (due, group.id, key)
            )
    return found


def out_keys(cx: Connection, group: Group) -> set[str | None]:
    """The keys of all log rows that are out with any consumer."""
    keys: set[str | None] = set()
    for (blob,) in cx.execute("select keys from lease where source = ?", (group.id,)).fetchall():
        keys.update(decode_keys(blob))
    return keys


def join_scheduled(turn: Turn, group: Group, cursor: int) -> None:
    """Let what is scheduled and due join the end of its key's line."""
    rows = turn.cx.execute(_DUE, (group.id, turn.now)).fetchall()
    for hid, key in rows:
        turn.cx.execute(_JOIN, (cursor, hid))
        join(turn.cx, group, key)
    free(turn.cx, group, {key for _, key in rows})


def _due(cx: Connection, group: Group, key: str, *, is_out: bool) -> int | None:
    head = cx.execute(_HEAD, (group.id, key)).fetchone()
    if head is None:
        return None
    if is_out or cx.execute(_OUT, (group.id, key)).fetchone() is not None:
        return BUSY
    return BLOCKED if head[0] == PARKED else int(head[1])
