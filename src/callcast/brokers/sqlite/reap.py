"""Taking back what nobody settles, and trimming what everybody has passed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection

from callcast.brokers.sqlite import lanes
from callcast.brokers.sqlite.dbclock import DatabaseClock, see
from callcast.brokers.sqlite.records import Group
from callcast.brokers.sqlite.schema import IN_LINE
from callcast.brokers.sqlite.wire import decode_numbers

TRIM_MAX = 10_000
"""So many rows are trimmed in one transaction."""


def expired(cx: Connection, group: Group, now: int) -> bool:
    """Take back what is out on leases of this group that have ended; whether there were any."""
    tokens = cx.execute(
        "select token from lease where source = ? and until <= ?", (group.id, now)
    ).fetchall()
    for (token,) in tokens:
        reclaim(cx, group, token, now)
    return bool(tokens)


def of_dead(cx: Connection, *, instance: str, clock: DatabaseClock) -> list[int]:
    """Take back all that a dead broker's consumers held; the topics that have something new."""
    return _all(cx, "instance = ?", instance, clock.now())


def of_ended(cx: Connection, *, clock: DatabaseClock) -> list[int]:
    """Take back what is out on leases that have ended; the topics that have something new."""
    now = clock.now()
    return _all(cx, "until <= ?", now, now)


def reclaim(
    cx: Connection,
    group: Group,
    token: int,
    now: int,
    *,
    crashes: int = 1,  # noqa: PLR0913
) -> None:
    """End a lease: each message of it is free again, with so many more crashes."""
    row = cx.execute("select seqs from lease where token = ?", (token,)).fetchone()
    cx.execute("delete from lease where token = ?", (token,))
    see(cx, now)
    cx.executemany(
        "insert into held(source, state, seq, key, visible_at, at, round, crashes, message)"
        f" select ?, 1, seq, {'key' if group.is_ordered else 'null'}, ?, at, 0, ?, message"  # noqa: S608
        f" from {group.log} where seq = ?",
        [(group.id, now, crashes, seq) for seq in decode_numbers(row[0])],
    )
    keys = _keys(cx, group, token, decode_numbers(row[0]))
    cx.execute(
        "update held set token = null, crashes = crashes + ? where token = ?", (crashes, token)
    )
    for key in keys:
        lanes.join(cx, group, key)
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


def _all(cx: Connection, where: str, value: object, now: int) -> list[int]:
    rows = cx.execute(
        "select token, source.id, source.topic, name, ordered from lease"
        f" join source on source.id = lease.source where {where}",  # noqa: S608 - ours
        (value,),
    ).fetchall()
    topics: set[int] = set()
    for token, source, topic, name, is_ordered in rows:
        reclaim(cx, Group(source, topic, name, bool(is_ordered)), token, now)
        topics.add(topic)
    return sorted(topics)


def _keys(cx: Connection, group: Group, token: int, seqs: Sequence[int]) -> set[str]:
    """The keys whose line this lease's end changes."""
    if not group.is_ordered:
        return set()
    keys = {
        key
        for (key,) in cx.execute(
            f"select key from held where token = ? and key is not null and {IN_LINE}",  # noqa: S608
            (token,),
        )
    }
    if seqs:
        marks: Iterable[str] = ("?" for _ in seqs)
        found = cx.execute(
            f"select distinct key from {group.log} where key is not null"  # noqa: S608 - marks
            f" and seq in ({', '.join(marks)})",
            list(seqs),
        )
        keys.update(key for (key,) in found)
    return keys
