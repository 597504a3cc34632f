"""Fetching: what `pick` chooses goes on one lease, whose commit is the durable count of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from sqlite3 import Connection

from msgspec import Struct

from callcast.brokers.sqlite import lanes, leases, pick, reap
from callcast.brokers.sqlite.dbclock import SECOND
from callcast.brokers.sqlite.pick import Ask, HeldRow, Picked
from callcast.brokers.sqlite.records import Block, Hand, Slot, Turn
from callcast.brokers.sqlite.schema import BUSY, LETTER
from callcast.brokers.sqlite.wire import decode
from callcast.ports.broker import Delivery, Part

_NEXT_LETTER = (
    "select min(until) from lease where source = ?",
    f"select min(visible_at) from held where source = ? and {LETTER} and token is null",  # noqa: S608
)
_FREE = "select min(visible_at) from held where source = ? and state = 1 and token is null"
_NEXT = (
    "select min(until) from lease where source = ?",
    f"{_FREE} and key is null and crashes < 2",
    f"{_FREE} and key is null and crashes >= 2",
    "select min(visible_at) from held where source = ? and state = 0 and token is null",
    "select min(due) from queue where source = ?",
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
    is_retired: bool = False
    """The group is gone."""
    freed: bool = False
    """Others may find something too: leases had ended."""


def fetch(turn: Turn, hand: Hand, limit: int) -> Taken:
    """Hand out up to `limit` messages of the hand's part, on one lease."""
    group = hand.group
    state = turn.cx.execute(
        "select cursor, paused from source where id = ?", (group.id,)
    ).fetchone()
    if hand.is_closed or state is None:
        return Taken(is_retired=state is None)
    cursor, is_paused = state
    freed = reap.expired(turn, group)
    ask = Ask(hand, limit, cursor)
    if hand.part is Part.READY and is_paused:
        picked = Picked()
    elif hand.part is not Part.READY:
        picked = pick.aside(turn, ask)
    else:
        picked = (pick.ordered if group.is_ordered else pick.unordered)(turn, ask)
    taken = _lease(turn, hand, picked)
    taken.freed = freed
    if not taken.deliveries:
        taken.has_more = picked.moved
        taken.lost = _lost(turn.cx, hand)
        taken.wait = math.inf if is_paused else _next(turn.cx, hand, turn.now)
    return taken


def wait(cx: Connection, hand: Hand, now: int) -> float:
    """Seconds until a fetch would find something, as far as can be known without fetching."""
    group = hand.group
    row = cx.execute("select cursor, paused from source where id = ?", (group.id,)).fetchone()
    if row is None or (row[1] and hand.part is Part.READY):
        return math.inf
    newest = cx.execute(f"select max(seq) from {group.log}").fetchone()[0]  # noqa: S608 - a number
    if hand.part is Part.READY and newest is not None and newest > row[0]:
        return 0.0
    return _next(cx, hand, now)


def _lease(turn: Turn, hand: Hand, picked: Picked) -> Taken:
    """Put all that was picked on one lease."""
    held = [*picked.held, *picked.suspects]
    if not held and not picked.fresh:
        return Taken()
    now = turn.now
    log = {row.seq: row.key for row in picked.fresh}
    block = Block(leases.add(turn, hand, log=log, hids=[row.hid for row in held]))
    deliveries = [_from_held(block, row, now) for row in picked.held]
    for seq, key, message in picked.fresh:
        slot = Slot(block, seq, key, now)
        block.open.add(slot)
        deliveries.append(Delivery(decode(message), 0, 0, slot))
    deliveries += [_from_held(block, row, now) for row in picked.suspects]
    if hand.group.is_ordered and hand.part is not Part.READY:
        lanes.free(turn.cx, hand.group, {row.key for row in held if row.key is not None})
    return Taken(deliveries, block)


def _from_held(block: Block, row: HeldRow, now: int) -> Delivery:
    slot = Slot(block, -row.hid, row.key, now)
    block.open.add(slot)
    return Delivery(decode(row.message), row.round, row.crashes, slot)


def _lost(cx: Connection, hand: Hand) -> Sequence[int]:
    if not hand.blocks:
        return ()
    there = {
        token
        for (token,) in cx.execute(
            "select token from lease where source = ? and instance = ? and owner = ?",
            (hand.group.id, hand.instance, hand.owner),
        )
    }
    return [token for token in hand.blocks if token not in there]


def _next(cx: Connection, hand: Hand, now: int) -> float:
    """Seconds until a held message, a key's head or a lease becomes due; infinity for none."""
    dues = [
        cx.execute(query, (hand.group.id,)).fetchone()[0]
        for query in (_NEXT_LETTER if hand.part is Part.DEAD else _NEXT)
    ]
    times = [due for due in dues if due is not None and due < BUSY]
    return max(0.0, (min(times) - now) / SECOND) if times else math.inf
