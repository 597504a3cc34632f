"""Fetching: what is held and due first, then the log from the cursor on; one lease row for all.

The commit of that lease row is the durable count of the deliveries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from msgspec import Struct

from callcast.brokers.sqlite import lanes, leases, reap
from callcast.brokers.sqlite.dbclock import SECOND
from callcast.brokers.sqlite.records import Block, Group, Hand, Slot
from callcast.brokers.sqlite.schema import BUSY, IN_LINE, LETTER, PARKED, SCHEDULED, WAITING
from callcast.brokers.sqlite.wire import decode, decode_keys
from callcast.ports.broker import Delivery, Part

SUSPECT_CRASHES = 2
"""From so many crashes on a message is a suspect: unordered fetches take it last."""

SCAN_MAX = 512
"""So many log rows of busy keys are looked at in one fetch; then those go to `held`, so that the
next fetch starts behind them."""

_COLUMNS = "hid, key, round, crashes, message"

_FREE = (
    f"select {_COLUMNS} from held where source = ? and state = 1 and token is null"  # noqa: S608
    " and key is null and crashes < 2 and visible_at <= ? order by visible_at, hid limit ?"
)
_SUSPECT = _FREE.replace("crashes < 2", "crashes >= 2")
_LINE = (
    f"select {_COLUMNS}, state, visible_at from held where source = ? and key = ?"  # noqa: S608
    f" and {IN_LINE} order by seq, hid limit ?"
)
_LETTERS = (
    f"select {_COLUMNS} from held where source = ? and {LETTER} and token is null"  # noqa: S608
    " and visible_at <= ? order by hid limit ?"
)
_DELAYED = (
    f"select {_COLUMNS} from held where source = ? and state in ({SCHEDULED}, {WAITING})"  # noqa: S608
    " and token is null and visible_at > ? order by hid limit ?"
)


class Taken(Struct):
    """What one fetch got, or how long there will be nothing."""

    deliveries: Sequence[Delivery] = ()
    block: Block | None = None
    lost: Sequence[int] = ()
    """Tokens of this consumer that are gone: their deliveries are somebody else's now."""
    wait: float = math.inf
    """Seconds until something becomes due by itself."""
    has_more: bool = False
    """Nothing was handed out, but the next fetch starts further on."""
    freed: bool = False
    """Others may find something too: leases had ended."""


class HeldRow(NamedTuple):
    """A row of `held` that leaves."""

    hid: int
    key: str | None
    round: int
    crashes: int
    message: bytes


class LogRow(NamedTuple):
    """A row of the log that leaves."""

    seq: int
    key: str | None
    message: bytes


class Ask(NamedTuple):
    """What a fetch wants, and where its group stands."""

    limit: int
    now: int
    cursor: int


class Picked(Struct):
    """What leaves, in this order."""

    held: list[HeldRow] = []
    fresh: list[LogRow] = []
    suspects: list[HeldRow] = []
    moved: bool = False
    """Busy keys' rows went to `held`: the next fetch starts behind them."""


def fetch(cx: Connection, hand: Hand, limit: int, now: int) -> Taken:
    """Hand out up to `limit` messages of the hand's part, on one lease."""
    group = hand.group
    state = cx.execute("select cursor, paused from source where id = ?", (group.id,)).fetchone()
    if state is None or hand.is_closed:
        return Taken()
    cursor, is_paused = state
    freed = reap.expired(cx, group, now)
    picked = Picked()
    if hand.part is not Part.READY:
        query = _LETTERS if hand.part is Part.DEAD else _DELAYED
        picked.held = _held(cx, query, group, now, limit)
    elif not is_paused:
        (_pick_ordered if group.is_ordered else _pick)(cx, hand, Ask(limit, now, cursor), picked)
    taken = _lease(cx, hand, now, picked)
    taken.freed = freed
    if not taken.deliveries:
        taken.has_more = picked.moved
        taken.lost = _lost(cx, hand)
        taken.wait = math.inf if is_paused else _next(cx, hand, now)
    return taken


def _pick(cx: Connection, hand: Hand, ask: Ask, picked: Picked) -> None:
    """Unordered: what came back first, then the log; suspects last."""
    group = hand.group
    picked.held = _held(cx, _FREE, group, ask.now, ask.limit)
    room = ask.limit - len(picked.held)
    if room > 0:
        picked.fresh = _fresh(cx, group, ask.cursor, room)
        room -= len(picked.fresh)
    if room > 0:
        picked.suspects = _held(cx, _SUSPECT, group, ask.now, room)


def _pick_ordered(cx: Connection, hand: Hand, ask: Ask, picked: Picked) -> None:
    """Ordered: the heads of lines that are due, then the log, past the keys that must wait."""
    group = hand.group
    lanes.join_scheduled(cx, group, ask.now, ask.cursor)
    picked.held = _held(cx, _FREE, group, ask.now, ask.limit)  # those without a key
    picked.held += _heads(cx, hand, ask.limit - len(picked.held), ask.now)
    room = ask.limit - len(picked.held)
    if room > 0:
        scan = _Scan(cx, hand, ask)
        picked.fresh = scan.run(room)
        picked.moved = scan.moved
        room -= len(picked.fresh)
    if room > 0:
        picked.suspects = _held(cx, _SUSPECT, group, ask.now, room)


def _held(cx: Connection, query: str, group: Group, now: int, limit: int) -> list[HeldRow]:
    return [HeldRow(*row) for row in cx.execute(query, (group.id, now, limit))]


def _fresh(cx: Connection, group: Group, cursor: int, limit: int) -> list[LogRow]:
    rows = cx.execute(
        f"select seq, key, message from {group.log} where seq > ? order by seq limit ?",  # noqa: S608
        (cursor, limit),
    ).fetchall()
    if rows:
        cx.execute("update source set cursor = ? where id = ?", (rows[-1][0], group.id))
    return [LogRow(*row) for row in rows]


def _heads(cx: Connection, hand: Hand, limit: int, now: int) -> list[HeldRow]:
    """What may leave of the lines whose head is due: of each, so many as `Hand.room` says."""
    group = hand.group
    taken: list[HeldRow] = []
    keys = cx.execute(
        "select key from queue where source = ? and due <= ? order by due limit ?",
        (group.id, now, max(0, limit)),
    ).fetchall()
    for (key,) in keys:
        left = limit - len(taken)
        if left <= 0:
            break
        room = hand.room(key, 0)
        rows = cx.execute(_LINE, (group.id, key, left if room is None else min(left, room)))
        for *row, state, visible_at in rows.fetchall():
            head = HeldRow(*row)
            is_suspect = head.crashes >= SUSPECT_CRASHES
            is_first = not taken or taken[-1].key != key
            if state == PARKED or visible_at > now or (is_suspect and not is_first):
                break
            taken.append(head)
            if is_suspect:
                break
    for key in {row.key for row in taken}:
        cx.execute("update queue set due = ? where source = ? and key = ?", (BUSY, group.id, key))
    return taken


class _Scan:
    """One look along the log for an ordered group.

    A message leaves unless its key has a line in `held`, is out with another consumer, or has too
    many out with this one. What may not leave goes to `held` when something behind it leaves;
    else it stays in the log, so that a key that is alone never takes the long way.
    """

    def __init__(self, cx: Connection, hand: Hand, ask: Ask) -> None:
        self._cx = cx
        self._now = ask.now
        self._hand = hand
        self._cursor = ask.cursor
        self._blocked: set[str] = set()
        self._asked: set[str] = set()
        self._out: dict[str, int] = {}
        self._stopped: list[LogRow] = []
        self._has_lines: bool | None = None
        self.moved = False

    def run(self, limit: int) -> list[LogRow]:
        """The rows that leave; the cursor stands behind the last of them."""
        self._read_leases()
        taken: list[LogRow] = []
        end = self._cursor
        looked = 0
        while len(taken) < limit and looked < SCAN_MAX:
            rows = self._rows(end, max(limit - len(taken), 16))
            looked += len(rows)
            for row in rows:
                if len(taken) == limit:
                    break
                end = row.seq
                (taken if self._leaves(row) else self._stopped).append(row)
            else:
                if rows:
                    continue
            break
        # At the bound, all that stands in the way goes; else only what something has overtaken.
        last = end if looked >= SCAN_MAX else (taken[-1].seq if taken else self._cursor)
        self._move(last)
        return taken

    def _rows(self, after: int, limit: int) -> list[LogRow]:
        rows = [
            LogRow(*row)
            for row in self._cx.execute(
                f"select seq, key, message from {self._hand.group.log} where seq > ?"  # noqa: S608
                " order by seq limit ?",
                (after, limit),
            )
        ]
        self._look_up({row.key for row in rows if row.key is not None} - self._asked)
        return rows

    def _leaves(self, row: LogRow) -> bool:
        key = row.key
        if key is None:
            return True
        if key in self._blocked:
            return False
        out = self._out.get(key, 0)
        if self._hand.room(key, out) == 0:
            self._blocked.add(key)  # what is behind must wait behind
            return False
        self._out[key] = out + 1
        return True

    def _read_leases(self) -> None:
        hand = self._hand
        leases = self._cx.execute(
            "select instance, owner, keys from lease where source = ?",
            (hand.group.id,),
        ).fetchall()
        for instance, owner, blob in leases:
            keys = [key for key in decode_keys(blob) if key is not None]
            if (instance, owner) == (hand.instance, hand.owner):
                for key in keys:
                    self._out[key] = self._out.get(key, 0) + 1
            else:
                self._blocked.update(keys)

    def _look_up(self, keys: set[str]) -> None:
        """Find out which of these keys have a line."""
        source = self._hand.group.id
        if self._has_lines is None:
            found = self._cx.execute("select 1 from queue where source = ? limit 1", (source,))
            self._has_lines = found.fetchone() is not None
        if not self._has_lines or not keys:
            return
        self._asked |= keys
        marks = ", ".join("?" * len(keys))
        lines = self._cx.execute(
            f"select key from queue where source = ? and key in ({marks})",  # noqa: S608 - marks
            (source, *keys),
        )
        self._blocked.update(key for (key,) in lines)

    def _move(self, last: int) -> None:
        """Put the cursor there, and what it passes without leaving into `held`."""
        if last == self._cursor:
            return
        group = self._hand.group
        passed = [row for row in self._stopped if row.seq <= last]
        self._cx.executemany(
            "insert into held(source, state, seq, key, visible_at, at, round, crashes, message)"
            f" select ?, 1, seq, key, ?, at, 0, 0, message from {group.log} where seq = ?",  # noqa: S608
            [(group.id, self._now, row.seq) for row in passed],
        )
        keys = {row.key for row in passed if row.key is not None}
        for key in keys:
            lanes.join(self._cx, group, key)
        # A line that is new belongs to a key that is out: its settle frees it.
        self._cx.execute("update source set cursor = ? where id = ?", (last, group.id))
        self.moved = True


def _lease(cx: Connection, hand: Hand, now: int, picked: Picked) -> Taken:
    """Put all that was picked on one lease."""
    held = [*picked.held, *picked.suspects]
    if not held and not picked.fresh:
        return Taken()
    log = {row.seq: row.key for row in picked.fresh}
    hids = [row.hid for row in held]
    block = Block(leases.add(cx, hand, now + hand.lease, log=log, hids=hids))
    deliveries = [_from_held(block, row, now) for row in picked.held]
    for seq, key, message in picked.fresh:
        slot = Slot(block, seq, key, now)
        block.open.add(slot)
        deliveries.append(Delivery(decode(message), 0, 0, slot))
    deliveries += [_from_held(block, row, now) for row in picked.suspects]
    if hand.group.is_ordered and hand.part is not Part.READY:
        lanes.free(cx, hand.group, {row.key for row in held if row.key is not None})
    return Taken(deliveries, block)


def _from_held(block: Block, row: HeldRow, now: int) -> Delivery:
    slot = Slot(block, -row.hid, row.key, now)
    block.open.add(slot)
    return Delivery(decode(row.message), row.round, row.crashes, slot)


def _lost(cx: Connection, hand: Hand) -> Sequence[int]:
    there = {
        token
        for (token,) in cx.execute(
            "select token from lease where source = ? and instance = ? and owner = ?",
            (hand.group.id, hand.instance, hand.owner),
        )
    }
    return [token for token in hand.blocks if token not in there]


def wait(cx: Connection, hand: Hand, now: int) -> float:
    """Seconds until a fetch would find something, as far as can be known without fetching."""
    group = hand.group
    row = cx.execute("select cursor, paused from source where id = ?", (group.id,)).fetchone()
    if row is None or row[1]:
        return math.inf
    newest = cx.execute(f"select max(seq) from {group.log}").fetchone()[0]  # noqa: S608 - a number
    if hand.part is Part.READY and newest is not None and newest > row[0]:
        return 0.0
    return _next(cx, hand, now)


def _next(cx: Connection, hand: Hand, now: int) -> float:
    """Seconds until a held message, a key's head or a lease becomes due; infinity for none."""
    source = hand.group.id
    dues = [
        cx.execute(query, (source,)).fetchone()[0]
        for query in (_NEXT_LETTER if hand.part is Part.DEAD else _NEXT)
    ]
    times = [due for due in dues if due is not None and due < BUSY]
    return max(0.0, (min(times) - now) / SECOND) if times else math.inf


_NEXT_LETTER = (
    "select min(until) from lease where source = ?",
    f"select min(visible_at) from held where source = ? and {LETTER} and token is null",  # noqa: S608
)
_NEXT = (
    "select min(until) from lease where source = ?",
    "select min(visible_at) from held where source = ? and state = 1 and token is null"
    " and key is null and crashes < 2",
    "select min(visible_at) from held where source = ? and state = 1 and token is null"
    " and key is null and crashes >= 2",
    "select min(visible_at) from held where source = ? and state = 0 and token is null",
    "select min(due) from queue where source = ?",
)
