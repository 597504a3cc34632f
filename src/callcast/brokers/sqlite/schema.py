"""The layout of the file, and the check of who wrote it.

- ``log_<topic>`` holds each published message once; a group is a cursor into it.
- ``lease`` has one row per fetch: the log rows handed out. Gone means lost: that is the fence.
- ``held`` has what left the log's order: delayed, released, reclaimed, scheduled, parked, dead.
- ``queue`` has one row per key with held messages: when its head is due, or why it is not.
"""

from __future__ import annotations

from sqlite3 import Connection

from callcast.core.errors import Misuse

APPLICATION_ID = 0x63636173
"""``ccas`` in the file's header: this is a broker of callcast."""

MAJOR = 1
"""A file with a higher one is refused: this version would misread it."""

MINOR = 1
"""A file with a higher one has additions that this version may leave alone.

1 added who sent a dead letter and its id, by which one that dies again is found.
"""

SCHEDULED, WAITING, PARKED, DEAD = range(4)
"""`held.state`. Scheduled: joins its key's order when due. Parked: dead, and holds its key."""

BUSY = 1 << 60
"""`queue.due` of a key that has deliveries out: its owner's settle frees it."""

BLOCKED = 1 << 61
"""`queue.due` of a key behind a parked dead letter: a redrive or a skip frees it."""

IN_LINE = "state in (1, 2)"
"""Held rows that stand in their key's order; written alike in the index and in all queries."""

HELD = "source, state, seq, key, visible_at, at, round, crashes, message"
"""The columns of `held` that are written when a row is made."""

LETTER = "state in (2, 3)"
"""Held rows that are dead letters."""

_IDENTITY = ("sender", "message_id")
"""Columns of `held` that only dead letters fill."""

_LETTERS = f"create index held_letter on held(source, sender, message_id) where {LETTER}"

_TABLES = f"""
create table clock(id integer primary key check (id = 1), boot text not null,
    offset integer not null, seen integer not null);
create table topic(id integer primary key autoincrement, name text not null unique);
create table source(id integer primary key autoincrement, topic integer not null,
    name text not null, ordered integer not null, lanes integer not null, start text not null,
    cursor integer not null, paused integer not null default 0, unique (topic, name));
create table lease(token integer primary key autoincrement, source integer not null,
    topic integer not null, instance text not null, owner integer not null, until integer not null,
    part text not null, first integer, n integer not null, seqs blob not null, keys blob);
create table held(hid integer primary key autoincrement, source integer not null,
    state integer not null, seq integer not null, key text, visible_at integer not null,
    at integer not null, round integer not null, crashes integer not null, token integer,
    message blob not null, sender text, message_id text);
create index held_free on held(source, visible_at)
    where state = 1 and token is null and key is null and crashes < 2;
create index held_suspect on held(source, visible_at)
    where state = 1 and token is null and key is null and crashes >= 2;
create index held_line on held(source, key, seq) where {IN_LINE} and key is not null;
create index held_scheduled on held(source, visible_at) where state = 0 and token is null;
{_LETTERS};
create index held_out on held(token) where token is not null;
create table queue(source integer not null, key text not null, due integer not null,
    primary key (source, key)) without rowid;
create index queue_due on queue(source, due);
"""


def prepare(cx: Connection, path: str) -> None:
    """Lay out a new file, or check an old one; raises `Misuse` for one that is not ours.

    Needs an open write transaction.
    """
    application = _pragma(cx, "application_id")
    version = _pragma(cx, "user_version")
    if application == APPLICATION_ID:
        if version // 1000 > MAJOR:
            raise Misuse(
                f"{path} has layout {version // 1000}, written by a newer callcast; this one reads"
                f" up to {MAJOR}: upgrade callcast here, or give it another file"
            )
        if version % 1000 < MINOR:
            _upgrade(cx)
        return
    if application or version or cx.execute("select 1 from sqlite_schema limit 1").fetchone():
        raise Misuse(f"{path} is a SQLite database of something else: name another file")
    for statement in _TABLES.split(";"):
        cx.execute(statement)
    cx.execute(f"pragma application_id = {APPLICATION_ID}")
    cx.execute(f"pragma user_version = {MAJOR * 1000 + MINOR}")


def _upgrade(cx: Connection) -> None:
    """Add what an earlier version of this layout lacks. Letters that are there stay as they are."""
    for column in _IDENTITY:
        cx.execute(f"alter table held add column {column} text")
    cx.execute("drop index held_letter")
    cx.execute(_LETTERS)
    cx.execute(f"pragma user_version = {MAJOR * 1000 + MINOR}")


def create_log(cx: Connection, topic: int) -> None:
    """Make the log of a new topic. Its numbers never repeat, also when it was empty between."""
    cx.execute(
        f"create table log_{topic}(seq integer primary key autoincrement, key text,"
        " at integer not null, message blob not null)"
    )


def _pragma(cx: Connection, name: str) -> int:
    return int(cx.execute(f"pragma {name}").fetchone()[0])
