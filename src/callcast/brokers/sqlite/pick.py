"""Which messages a fetch gets: what is held and due first, then the log from the cursor on."""

from __future__ import annotations

from itertools import starmap
from typing import NamedTuple

from msgspec import Struct

from callcast.brokers.sqlite import lanes
from callcast.brokers.sqlite.records import Hand, Turn
from callcast.brokers.sqlite.schema import BUSY, HELD, IN_LINE, LETTER, PARKED
from callcast.brokers.sqlite.wire import decode_keys
from callcast.ports.broker import Part

SUSPECT_CRASHES = 2
"""From so many crashes on a message is a suspect: unordered fetches take it last."""

SCAN_MAX = 512
"""So many log rows of busy keys are looked at in one fetch; then those go to `held`, so that the
next fetch starts behind them."""

_READ_MIN = 16
"""So many log rows are read at once at least."""

_COLUMNS = "hid, key, round, crashes, message"
_FREE = (
    f"select {_COLUMNS} from held where source = ? and state = 1 and token is null"  # noqa: S608
    " and key is null and crashes < 2 and visible_at <= ? order by visible_at, hid limit ?"
)
_SUSPECTS = _FREE.replace("crashes < 2", "crashes >= 2")
_LINE = (
    f"select {_COLUMNS}, state, visible_at from held where source = ? and key = ?"  # noqa: S608
    f" and {IN_LINE} order by seq, hid limit ?"
)
_LETTERS = (
    f"select {_COLUMNS} from held where source = ? and {LETTER} and token is null"  # noqa: S608
    " and visible_at <= ? order by hid limit ?"
)
_DELAYED = (
    f"select {_COLUMNS} from held where source = ? and state in (0, 1) and token is null"  # noqa: S608
    " and visible_at > ? order by hid limit ?"
)


class Ask(NamedTuple):
    """What a fetch wants, and where its group stands."""

    hand: Hand
    limit: int
    cursor: int


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


class Picked(Struct):
    """What leaves, in this order."""

    held: list[HeldRow] = []
    fresh: list[LogRow] = []
    suspects: list[HeldRow] = []
    moved: bool = False
    """Busy keys' rows went to `held`: the next fetch starts behind them."""

    def room(self, ask: Ask) -> int:
        """How many more were asked for."""
        return ask.limit - len(self.held) - len(self.fresh) - len(self.suspects)


def aside(turn: Turn, ask: Ask) -> Picked:
    """Of what no worker gets: dead letters, or what is delayed."""
    query = _LETTERS if ask.hand.part is Part.DEAD else _DELAYED
    return Picked(held=_held(turn, ask, query, ask.limit))


def unordered(turn: Turn, ask: Ask) -> Picked:
    """What came back first, then the log; suspects last."""
    picked = Picked(held=_held(turn, ask, _FREE, ask.limit))
    if (room := picked.room(ask)) > 0:
        picked.fresh = _fresh(turn, ask, room)
    if (room := picked.room(ask)) > 0:
        picked.suspects = _held(turn, ask, _SUSPECTS, room)
    return picked


def ordered(turn: Turn, ask: Ask) -> Picked:
    """The heads of lines that are due, then the log, past the keys that must wait."""
    lanes.join_scheduled(turn, ask.hand.group, ask.cursor)
    picked = Picked(held=_held(turn, ask, _FREE, ask.limit))  # those without a key
    if (room := picked.room(ask)) > 0:
        picked.held += _heads(turn, ask, room)
    if (room := picked.room(ask)) > 0:
        scan = _Scan(turn, ask)
        picked.fresh = scan.run(room)
        picked.moved = scan.moved
    if (room := picked.room(ask)) > 0:
        picked.suspects = _held(turn, ask, _SUSPECTS, room)
    return picked


def _held(turn: Turn, ask: Ask, query: str, /, *rest: int) -> list[HeldRow]:
    values = (ask.hand.group.id, turn.now, *rest)
    return [HeldRow(*row) for row in turn.cx.execute(query, values)]


def _fresh(turn: Turn, ask: Ask, limit: int) -> list[LogRow]:
    group = ask.hand.group
    rows = turn.cx.execute(
        f"select seq, key, message from {group.log} where seq > ? order by seq limit ?",  # noqa: S608
        (ask.cursor, limit),
    ).fetchall()
    if rows:
        turn.cx.execute("update source set cursor = ? where id = ?", (rows[-1][0], group.id))
    return [LogRow(*row) for row in rows]


def _heads(turn: Turn, ask: Ask, limit: int) -> list[HeldRow]:
    """What may leave of the lines whose head is due: of each, so many as `Hand.room` says."""
    group = ask.hand.group
    taken: list[HeldRow] = []
    keys = turn.cx.execute(
        "select key from queue where source = ? and due <= ? order by due limit ?",
        (group.id, turn.now, limit),
    ).fetchall()
    for (key,) in keys:
        if len(taken) == limit:
            break
        head = _line(turn, ask, key, limit=limit - len(taken))
        if head:
            turn.cx.execute(
                "update queue set due = ? where source = ? and key = ?", (BUSY, group.id, key)
            )
        taken += head
    return taken


def _line(turn: Turn, ask: Ask, key: str, *, limit: int) -> list[HeldRow]:
    """The front of a key's line that may leave together; a suspect leaves alone."""
    room = ask.hand.room(key, 0)
    rows = turn.cx.execute(
        _LINE, (ask.hand.group.id, key, limit if room is None else min(limit, room))
    ).fetchall()
    front: list[HeldRow] = []
    for *columns, state, visible_at in rows:
        row = HeldRow(*columns)
        is_suspect = row.crashes >= SUSPECT_CRASHES
        if state == PARKED or visible_at > turn.now or (is_suspect and front):
            break
        front.append(row)
        if is_suspect:
            break
    return front


class _Scan:
    """One look along the log for an ordered group.

    A message leaves unless its key has a line in `held`, is out with another consumer, or has too
    many out with this one. What may not leave goes to `held` when something behind it leaves;
    else it stays in the log, so that a key that is alone never takes the long way.
    """

    def __init__(self, turn: Turn, ask: Ask) -> None:
        self._turn = turn
        self._ask = ask
        self._blocked: set[str] = set()
        self._asked: set[str] = set()
        self._out: dict[str, int] = {}
        self._stopped: list[LogRow] = []
        source = (ask.hand.group.id,)
        found = turn.cx.execute("select 1 from queue where source = ? limit 1", source)
        self._has_lines = found.fetchone() is not None
        self.moved = False

    def run(self, limit: int) -> list[LogRow]:
        """The rows that leave; the cursor stands behind the last of them."""
        self._read_leases()
        taken: list[LogRow] = []
        end = self._ask.cursor
        looked = 0
        while len(taken) < limit and looked < SCAN_MAX:
            rows = self._rows(end, max(limit - len(taken), _READ_MIN))
            if not rows:
                break
            for row in rows:
                end = row.seq
                looked += 1
                if self._leaves(row):
                    taken.append(row)
                    if len(taken) == limit:
                        break
                else:
                    self._stopped.append(row)
        # At the bound, all that stands in the way goes; else only what something has overtaken.
        overtaken = taken[-1].seq if taken else self._ask.cursor
        self._move(end if looked >= SCAN_MAX else overtaken)
        return taken

    def _rows(self, after: int, limit: int) -> list[LogRow]:
        found = self._turn.cx.execute(
            f"select seq, key, message from {self._ask.hand.group.log} where seq > ?"  # noqa: S608
            " order by seq limit ?",
            (after, limit),
        )
        rows = [*starmap(LogRow, found)]
        if self._has_lines:
            self._look_up({row.key for row in rows if row.key is not None} - self._asked)
        return rows

    def _leaves(self, row: LogRow) -> bool:
        key = row.key
        if key is None:
            return True
        if key in self._blocked:
            return False
        hand = self._ask.hand
        if key in hand.quick:
            return True
        out = self._out.get(key, 0)
        if hand.room(key, out) == 0:
            return False
        self._out[key] = out + 1
        return True

    def _read_leases(self) -> None:
        """Learn which keys are out with others, and how many of each with this consumer."""
        hand = self._ask.hand
        leases = self._turn.cx.execute(
            "select instance, owner, keys from lease where source = ?", (hand.group.id,)
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
        if not keys:
            return
        self._asked |= keys
        marks = ", ".join("?" * len(keys))
        lines = self._turn.cx.execute(
            f"select key from queue where source = ? and key in ({marks})",  # noqa: S608 - marks
            (self._ask.hand.group.id, *keys),
        )
        self._blocked.update(key for (key,) in lines)

    def _move(self, last: int) -> None:
        """Put the cursor there, and what it passes without leaving into `held`."""
        if last == self._ask.cursor:
            return
        cx, group = self._turn.cx, self._ask.hand.group
        passed = [row for row in self._stopped if row.seq <= last]
        cx.executemany(
            f"insert into held({HELD}) select ?, 1, seq, key, ?, at, 0, 0, message"  # noqa: S608
            f" from {group.log} where seq = ?",
            [(group.id, self._turn.now, row.seq) for row in passed],
        )
        # A line that is new belongs to a key that is out: its settle frees it.
        for key in {row.key for row in passed if row.key is not None}:
            lanes.join(cx, group, key)
        cx.execute("update source set cursor = ? where id = ?", (last, group.id))
        self.moved = True
