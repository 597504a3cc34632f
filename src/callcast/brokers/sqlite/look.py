"""Looking without touching: which groups there are, how far one is behind, what lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from callcast.brokers.sqlite.dbclock import SECOND, DatabaseClock
from callcast.brokers.sqlite.records import Group, Turn
from callcast.brokers.sqlite.schema import BUSY, DEAD, IN_LINE, PARKED, WAITING
from callcast.brokers.sqlite.wire import decode
from callcast.ports.broker import Glimpse, Lag, Part, Source, Start

LAG_SCAN_MAX = 20_000
"""Of a longer log, only so many rows are searched for keys that wait for a time; the rest counts
as ready."""

_WAITS = f"(select key from queue where source = ? and due > ? and due <> {BUSY})"  # noqa: S608
"""Keys whose head waits for a time, or for a redrive."""

_IS_LATE = f"(visible_at > ? or (key is not null and state = {WAITING} and key in {_WAITS}))"
"""Of a held row: it waits for a time, or behind one that does. Parameters: now, source, now."""

_LINE = f"from held where source = ? and key = ? and {IN_LINE} and state ="
_PARKED = f"select min(seq) {_LINE} {PARKED}"
_BEHIND = f"select count(*) {_LINE} {WAITING}"


class Page(NamedTuple):
    """One page of one part of a group."""

    group: Group
    clock: DatabaseClock
    part: Part
    after: str
    limit: int


def find(cx: Connection, source: Source) -> Group | None:
    """The group that this names, or None."""
    row = cx.execute(
        "select source.id, topic.id, source.ordered from source join topic"
        " on topic.id = source.topic where topic.name = ? and source.name = ?",
        (source.topic, source.group),
    ).fetchone()
    return None if row is None else Group(row[0], row[1], str(source), bool(row[2]))


def sources(cx: Connection) -> list[Source]:
    """All groups of all topics."""
    rows = cx.execute(
        "select topic.name, source.name, ordered, lanes, start from source join topic"
        " on topic.id = source.topic order by source.id"
    ).fetchall()
    return [
        Source(topic, name, bool(ordered), lanes, Start(start))
        for topic, name, ordered, lanes, start in rows
    ]


def lag(cx: Connection, group: Group, clock: DatabaseClock) -> Lag:
    """How far a group is behind."""
    now = clock.now()
    row = cx.execute("select cursor, paused from source where id = ?", (group.id,)).fetchone()
    cursor, paused = row or (0, 0)
    log = cx.execute(
        f"select coalesce(max(seq) - max(?, min(seq) - 1), 0), max(seq) from {group.log}",  # noqa: S608
        (cursor,),
    ).fetchone()
    behind = max(0, log[0])
    stuck = _stuck(Turn(cx, now), group, cursor) if behind and group.is_ordered else 0
    late = (now, group.id, now)
    held = cx.execute(
        f"select count(*) filter (where state < {PARKED} and not {_IS_LATE}),"  # noqa: S608
        f" count(*) filter (where state < {PARKED} and {_IS_LATE}), min(at)"
        f" from held where source = ? and token is null and state < {PARKED}",
        (*late, *late, group.id),
    ).fetchone()
    dead = cx.execute(
        "select count(*), min(at) from held where source = ? and state in (2, 3)", (group.id,)
    ).fetchone()
    leased = cx.execute(
        "select coalesce(sum(n), 0) from lease where source = ? and part = ?",
        (group.id, Part.READY.value),
    ).fetchone()[0]
    ages = [held[2], dead[1], *_oldest(cx, group, cursor)]
    known = [at for at in ages if at is not None]
    return Lag(
        ready=behind - stuck + held[0],
        leased=leased,
        delayed=held[1] + stuck,
        dead=dead[0],
        oldest=max(0.0, (clock.wall() - min(known)) / SECOND) if known else 0.0,
        paused=bool(paused),
    )


def browse(cx: Connection, page: Page) -> Sequence[Glimpse]:
    """The next messages of a part: first what is held, then the log; each oldest first."""
    kind, _, number = page.after.partition("-")
    found = [] if kind == "log" else _browse_held(cx, page, int(number or 0))
    room = page.limit - len(found)
    if room > 0 and page.part is not Part.DEAD:
        found += _browse_log(cx, page, after=int(number) if kind == "log" else 0, limit=room)
    return found


def held_behind(cx: Connection, group: Group, key: str) -> int:
    """How many messages wait behind the parked letters of a key; 0 when there is none."""
    parked = cx.execute(_PARKED, (group.id, key)).fetchone()[0]
    if parked is None:
        return 0
    held = cx.execute(_BEHIND, (group.id, key)).fetchone()[0]
    log = cx.execute(
        f"select count(*) from {group.log} where key = ? and seq >"  # noqa: S608 - a number
        " (select cursor from source where id = ?)",
        (key, group.id),
    ).fetchone()[0]
    return int(held + log)


def _stuck(turn: Turn, group: Group, cursor: int) -> int:
    """Log rows whose key waits for a time or for a redrive."""
    cx, now = turn
    if not cx.execute(f"select 1 where exists {_WAITS}", (group.id, now)).fetchone():
        return 0
    return int(
        cx.execute(
            f"select count(*) from (select key from {group.log} where seq > ?"  # noqa: S608
            f" order by seq limit {LAG_SCAN_MAX}) where key in {_WAITS}",
            (cursor, group.id, now),
        ).fetchone()[0]
    )


def _oldest(cx: Connection, group: Group, cursor: int) -> tuple[int | None, int | None]:
    """When the oldest message was published of those not fetched, and of those that are out."""
    first = cx.execute(
        f"select at from {group.log} where seq > ? order by seq limit 1",  # noqa: S608
        (cursor,),
    ).fetchone()
    out = cx.execute(
        f"select min(at) from {group.log} where seq ="  # noqa: S608 - a number
        " (select min(first) from lease where source = ?)",
        (group.id,),
    ).fetchone()
    held = cx.execute(
        "select min(held.at) from held join lease using (token) where lease.source = ?",
        (group.id,),
    ).fetchone()
    ages = [at for at in (out[0], held[0]) if at is not None]
    return (None if first is None else first[0], min(ages, default=None))


def _browse_held(cx: Connection, page: Page, after: int) -> list[Glimpse]:
    now = page.clock.now()
    values: tuple[int, ...] = ()
    if page.part is Part.DEAD:
        where = f"state in ({PARKED}, {DEAD})"
    else:
        is_late = _IS_LATE if page.part is Part.DELAYED else f"not {_IS_LATE}"
        where = f"state < {PARKED} and token is null and {is_late}"
        values = (now, page.group.id, now)
    rows = cx.execute(
        f"select hid, message, round, crashes, visible_at from held where {where}"  # noqa: S608
        " and source = ? and hid > ? order by hid limit ?",
        (*values, page.group.id, after, page.limit),
    ).fetchall()
    return [
        Glimpse(
            decode(blob),
            round_,
            crashes,
            page.clock.shown(due) if page.part is Part.DELAYED else None,
            f"held-{hid}",
        )
        for hid, blob, round_, crashes, due in rows
    ]


def _browse_log(cx: Connection, page: Page, *, after: int, limit: int) -> list[Glimpse]:
    group = page.group
    if page.part is Part.DELAYED and not group.is_ordered:
        return []
    is_it = "is" if page.part is Part.DELAYED else "is not"
    rows = cx.execute(
        f"select seq, message from {group.log} where seq > max(?,"  # noqa: S608 - a number
        " coalesce((select cursor from source where id = ?), 0))"
        f" and (key in {_WAITS}) {is_it} true order by seq limit ?",
        (after, group.id, group.id, page.clock.now(), limit),
    ).fetchall()
    return [Glimpse(decode(blob), position=f"log-{seq}") for seq, blob in rows]
