"""Settling: what becomes of deliveries, in the file and then in memory.

What is on a lease is read from the file, not from memory: two settles of one transaction see each
other there, while memory changes only after the commit.

| verdict   | from the log              | from `held`                                  |
|-----------|---------------------------|----------------------------------------------|
| `Done`    | nothing: the cursor passed | the row goes                                |
| `Later`   | a copy to `held`          | due later, one round more, no crashes        |
| `Release` | a copy to `held`          | free again                                   |
| `Dead`    | a copy to `held`          | a dead letter, or a parked one               |

A message that dies again replaces its dead letter (`letters`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sqlite3 import Connection
from typing import TypeAlias

from msgspec import Struct

from callcast.brokers.sqlite import lanes, leases, letters, reap
from callcast.brokers.sqlite.dbclock import see, span
from callcast.brokers.sqlite.records import Block, Hand, Slot, Turn
from callcast.brokers.sqlite.schema import DEAD, HELD, PARKED, WAITING
from callcast.brokers.sqlite.wire import encode
from callcast.core.outcome import Dead, Done, Later, Outcome, Release, dead_letter, noted
from callcast.ports.broker import Delivery, Part

Verdict: TypeAlias = tuple[Delivery, Outcome]


class Settled(Struct):
    """What one settle did; memory changes by it after the commit."""

    done: list[Slot]
    lost: list[Delivery]
    frees: bool = False
    """Something may be fetched that could not be before, by another consumer too."""


def settle(turn: Turn, hand: Hand, verdicts: Iterable[Verdict]) -> Settled:
    """Carry out verdicts; those of a lease that is gone change nothing and are lost."""
    cx = turn.cx
    blocks: dict[Block, dict[Slot, Verdict]] = {}
    result = Settled([], [])
    for verdict in verdicts:
        slot = verdict[0].handle
        if not isinstance(slot, Slot) or slot.block is None:
            result.lost.append(verdict[0])
        elif (ruled := blocks.setdefault(slot.block, {})).setdefault(slot, verdict) is not verdict:
            result.lost.append(verdict[0])  # the second one in the same call
    for block, ruled in blocks.items():
        on_it = leases.take_off(cx, block, ruled.keys())
        result.done += on_it
        if len(on_it) < len(ruled):
            there = set(on_it)
            result.lost += [verdict[0] for slot, verdict in ruled.items() if slot not in there]
            ruled = {slot: ruled[slot] for slot in on_it}  # noqa: PLW2901 - what is left of it
        result.frees = _carry_out_all(turn, hand, ruled) or result.frees
    keys = {slot.key for slot in result.done if slot.key is not None}
    if keys and hand.group.is_ordered:
        # Also a key without a line is free now: its next message waits in the log.
        result.frees = True
        lanes.free(cx, hand.group, keys)
    return result


def settled(hand: Hand, result: Settled, now: int) -> int:
    """Change memory after the commit; how many leases have ended."""
    ended = 0
    for slot in result.done:
        if slot.key is not None and hand.group.is_ordered:
            hand.pace(slot.key, now - slot.since)
        ended += _forget(hand, slot)
    for delivery in result.lost:
        if isinstance(delivery.handle, Slot):
            _forget(hand, delivery.handle)
    return ended


def renew(turn: Turn, hand: Hand, deliveries: Iterable[Delivery]) -> list[Block]:
    """Lease these for a full time from now; what is lost stays lost.

    Of a lease that has others too, the named ones get one of their own: these new blocks, open
    with what they take over.
    """
    cx, until = turn.cx, turn.now + hand.lease
    wanted: dict[Block, set[Slot]] = {}
    for delivery in deliveries:
        slot = delivery.handle
        if isinstance(slot, Slot) and slot.block is not None:
            wanted.setdefault(slot.block, set()).add(slot)
    parted: list[Block] = []
    for block, slots in wanted.items():
        if len(slots) == len(block.open):
            cx.execute("update lease set until = ? where token = ?", (until, block.token))
            continue
        moved = leases.take_off(cx, block, slots)
        if moved:
            log = {slot.row: slot.key for slot in sorted(moved, key=_row) if slot.row > 0}
            hids = [-slot.row for slot in moved if slot.row < 0]
            part = Block(leases.add(turn, hand, log=log, hids=hids))
            part.open.update(moved)
            parted.append(part)
    return parted


def renewed(hand: Hand, parted: Iterable[Block]) -> None:
    """Change memory after the commit of `renew`."""
    for block in parted:
        hand.blocks[block.token] = block
        for slot in block.open:
            _forget(hand, slot)
            slot.block = block


def release_all(turn: Turn, hand: Hand) -> bool:
    """Give back all that a consumer holds, uncounted; whether there was anything."""
    tokens = turn.cx.execute(
        "select token from lease where source = ? and instance = ? and owner = ?",
        (hand.group.id, hand.instance, hand.owner),
    ).fetchall()
    for (token,) in tokens:
        reap.reclaim(turn, hand.group, token, crashes=0)
    return bool(tokens)


def _row(slot: Slot) -> int:
    return slot.row


def _forget(hand: Hand, slot: Slot) -> bool:
    """Take a slot off its block; whether that ends the block."""
    block, slot.block = slot.block, None
    if block is None:
        return False
    block.open.discard(slot)
    if block.open:
        return False
    hand.blocks.pop(block.token, None)
    return True


def _carry_out_all(turn: Turn, hand: Hand, ruled: Mapping[Slot, Verdict]) -> bool:
    """Whether anything but log rows that are done was among them."""
    frees = False
    for slot, (delivery, outcome) in ruled.items():
        if slot.row > 0 and type(outcome) is Done:
            continue
        if type(outcome) is Done:
            turn.cx.execute("delete from held where hid = ?", (-slot.row,))
            continue
        hid = _keep(turn.cx, hand, _kept(slot, (delivery, outcome), turn.now))
        if type(outcome) is Dead and hand.part is not Part.DEAD:
            letters.collapse(turn.cx, hand.group, delivery.message, hid=hid)
        frees = True
    if frees:
        see(turn.cx, turn.now)
    return frees


class _Kept(Struct):
    """What `held` is to say of a delivery that is not finished."""

    slot: Slot
    due: int
    """Not before; for a dead letter, not shown before."""
    round: int
    crashes: int
    blob: bytes | None
    """Its message, where that has changed or must be copied."""
    is_dead: bool = False
    parks: bool = False
    is_release: bool = False


def _kept(slot: Slot, verdict: Verdict, now: int) -> _Kept:
    """What the table at the top says."""
    delivery, outcome = verdict
    message = delivery.message
    kept = _Kept(slot, now, delivery.round, delivery.crashes, None)
    if isinstance(outcome, Later):
        message = noted(message, outcome.notes)
        kept.due, kept.round, kept.crashes = now + span(outcome.delay), delivery.round + 1, 0
    elif isinstance(outcome, Dead):
        message = dead_letter(message, outcome)
        kept.is_dead, kept.parks = True, outcome.park and slot.key is not None
    elif isinstance(outcome, Release):
        kept.due, kept.is_release = now + span(outcome.after), True
    if slot.row > 0 or message is not delivery.message:
        kept.blob = encode(message)
    return kept


def _keep(cx: Connection, hand: Hand, kept: _Kept) -> int:
    """Write it; its row of `held`."""
    group, slot, hid = hand.group, kept.slot, -kept.slot.row
    key = slot.key if group.is_ordered else None
    dead = PARKED if kept.parks and group.is_ordered else DEAD
    if slot.row > 0:
        state = dead if kept.is_dead else WAITING
        hid = cx.execute(
            f"insert into held({HELD}) select ?, ?, seq, ?, ?, at, ?, ?, ?"  # noqa: S608
            f" from {group.log} where seq = ? returning hid",
            (group.id, state, key, kept.due, kept.round, kept.crashes, kept.blob, slot.row),
        ).fetchone()[0]
    else:
        cx.execute(
            "update held set token = null, round = ?, crashes = ?,"
            " visible_at = case when ? then visible_at else ? end,"
            " state = case when ? then ? else state end, message = coalesce(?, message)"
            " where hid = ?",
            (
                kept.round,
                kept.crashes,
                # Looked at and given back: what is delayed stays so for as long as it was.
                hand.part is Part.DELAYED and kept.is_release,
                kept.due,
                kept.is_dead and hand.part is not Part.DEAD,
                dead,
                kept.blob,
                hid,
            ),
        )
    if key is not None:
        lanes.join(cx, group, key)
    return hid
