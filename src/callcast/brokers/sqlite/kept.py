"""Reading again what the log of a topic keeps: a window in time, between two positions."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from callcast.brokers.sqlite.dbclock import SECOND
from callcast.brokers.sqlite.wire import decode
from callcast.core.errors import Misuse
from callcast.ports.broker import Glimpse

_LAST = (1 << 63) - 1
"""The highest number of a row."""


class Window(NamedTuple):
    """One page of a topic's log; times in microseconds of the wall clock."""

    topic: str
    since: int
    until: int
    after: int
    last: int
    limit: int


def window(
    topic: str, *, since: float, until: float | None, after: str, last: str, limit: int
) -> Window:
    """The window that `Rewinds.read` names; raises `Misuse` for a position that is none."""
    return Window(
        topic,
        round(since * SECOND),
        _LAST if until is None else round(until * SECOND),
        _number(after, 0),
        _number(last, _LAST),
        limit,
    )


def read(cx: Connection, asked: Window) -> Sequence[Glimpse]:
    """What the log of a topic keeps of a window, oldest first."""
    row = cx.execute("select id from topic where name = ?", (asked.topic,)).fetchone()
    if row is None:
        return ()
    rows = cx.execute(
        f"select seq, at, message from log_{row[0]}"  # noqa: S608 - a number
        " where seq > ? and seq <= ? and at >= ? and at < ? order by seq limit ?",
        (asked.after, asked.last, asked.since, asked.until, asked.limit),
    ).fetchall()
    return [Glimpse(decode(blob), position=str(seq), at=at / SECOND) for seq, at, blob in rows]


def _number(position: str, missing: int) -> int:
    if not position:
        return missing
    if not (position.isascii() and position.isdigit() and int(position) <= _LAST):
        raise Misuse(f"{position!r} is no position of this broker's log: it is a number, as 1200")
    return int(position)
