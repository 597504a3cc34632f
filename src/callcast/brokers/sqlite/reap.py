"""Taking back what nobody settles, and trimming what everybody has passed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from sqlite3 import Connection

from callcast.brokers.sqlite import lanes
from callcast.brokers.sqlite.dbclock import see
from callcast.brokers.sqlite.records import Group, Turn
from callcast.brokers.sqlite.schema import HELD, IN_LINE
from callcast.brokers.sqlite.wire import decode_numbers

TRIM_MAX = 10_000
"""So many rows are trimmed in one transaction."""

_OWNED = (
    "select token, source.id, source.topic, name, ordered from lease"
    " join source on source.id = lease.source where "
)
_OF_DEAD = _OWNED + "instance = ?"
_OF_ENDED = _OWNED + "until <= ?"


def expired(turn: Turn, group: Group) -> bool:
    """Take back what is out on leases of this group that have ended; whether there were any."""
    tokens = turn.cx.execute(
        "select token from lease where source = ? and until <= ?", (group.id, turn.now)
    ).fetchall()
    for (token,) in tokens:
        reclaim(turn, group, token)
    return bool(tokens)


def dead(cx: Connection, is_alive: Callable[[str], bool]) -> list[str]:
    """The brokers whose leases stand though they are dead."""
    instances = cx.execute("select distinct instance from lease").fetchall()
    return [instance for (instance,) in instances if not is_alive(instance)]


def of_dead(turn: Turn, instance: str) -> list[int]:
    """Take back all that a dead broker's consumers held; the topics that have something new."""
    return _all(turn, turn.cx.execute(_OF_DEAD, (instance,)).fetchall())


def of_ended(turn: Turn) -> list[int]:
    """Take back what is out on leases that have ended; the topics that have something new."""
    return _all(turn, turn.cx.execute(_OF_ENDED, (turn.now,)).fetchall())


def reclaim(turn: Turn, group: Group, token: int, *, crashes: int = 1) -> None:
    """End a lease: each message of it is free again, with so many more crashes."""
    cx = turn.cx
    seqs = decode_numbers(
        cx.execute("select seqs from lease where token = ?", (token,)).fetchone()[0]
    )
    keys = _keys(turn, group, token, seqs=seqs) if group.is_ordered else set[str]()
    cx.execute("delete from lease where token = ?", (token,))
    see(cx, turn.now)
    key = "key" if group.is_ordered else "null"
    cx.executemany(
        f"insert into held({HELD}) select ?, 1, seq, {key}, ?, at, 0, ?, message"  # noqa: S608
        f" from {group.log} where seq = ?",
        [(group.id, turn.now, crashes, seq) for seq in seqs],
    )
    cx.execute(
        "update held set token = null, crashes = crashes + ? where token = ?", (crashes, token)
    )
    for name in keys:
        lanes.join(cx, group, name)
    lanes.free(cx, group, keys)


def trim(cx: Connection, topic: int, kept_since: int | None) -> bool:
    """Delete log rows that all groups have passed and none has out; whether more are left.

    `kept_since`: rows published at that wall-clock time (microseconds) or later stay.
    """
    first = cx.execute(f"select min(seq) from log_{topic}").fetchone()[0]  # noqa: S608 - a number
    if first is None:
        return False
    bounds = [
        cx.execute("select min(cursor) from source where topic = ?", (topic,)).fetchone()[0],
        cx.execute("select min(first) - 1 from lease where topic = ?", (topic,)).fetchone()[0],
    ]
    passed = min((bound for bound in bounds if bound is not None), default=None)
    last = first + TRIM_MAX - 1 if passed is None else min(passed, first + TRIM_MAX - 1)
    if kept_since is None:
        if passed is None:
            return False
        cx.execute(f"delete from log_{topic} where seq <= ?", (last,))  # noqa: S608 - a number
    else:
        cx.execute(
            f"delete from log_{topic} where seq <= ? and at < ?",  # noqa: S608 - a number
            (last, kept_since),
        )
    return passed is not None and last < passed


def _all(turn: Turn, rows: Iterable[tuple[int, int, int, str, int]]) -> list[int]:
    topics: set[int] = set()
    for token, source, topic, name, is_ordered in rows:
        reclaim(turn, Group(source, topic, name, bool(is_ordered)), token)
        topics.add(topic)
    return sorted(topics)


def _keys(turn: Turn, group: Group, token: int, *, seqs: Sequence[int]) -> set[str]:
    """The keys whose line this lease's end changes."""
    held = turn.cx.execute(
        f"select key from held where token = ? and key is not null and {IN_LINE}",  # noqa: S608
        (token,),
    )
    keys: set[str] = {key for (key,) in held}
    marks = ", ".join("?" * len(seqs))
    log = turn.cx.execute(
        f"select key from {group.log} where key is not null and seq in ({marks})",  # noqa: S608
        list(seqs),
    )
    return keys.union(key for (key,) in log)
