"""Publishing: one row in the topic's log, whatever the number of groups.

What is for one group, or for later, goes to `held` of each group that it is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from msgspec import Struct

from callcast.brokers.sqlite import lanes
from callcast.brokers.sqlite.dbclock import DatabaseClock, see
from callcast.brokers.sqlite.records import Group
from callcast.brokers.sqlite.schema import DEAD, PARKED, SCHEDULED, WAITING
from callcast.brokers.sqlite.wire import decode, encode
from callcast.core.errors import NotSent
from callcast.core.message import Message

_CHUNKS = (64, 16, 4, 1)
"""Rows of one statement: one ``values`` with many rows is 1.3 times as fast as `executemany`."""

_VALUES = {chunk: ", ".join(["(?, ?, ?)"] * chunk) for chunk in _CHUNKS}

_HOLD = (
    "insert into held(source, state, seq, key, visible_at, at, round, crashes, message)"
    " values (?, ?, ?, ?, ?, ?, 0, 0, ?)"
)


class Batch(Struct):
    """A batch on its way into the file."""

    messages: Sequence[Message]
    blobs: list[bytes]
    """One for each message; empty where it has an error."""
    errors: list[NotSent | None]

    @property
    def topics(self) -> set[str]:
        """Where it goes."""
        return {message.topic for message in self.messages}


class Published(Struct):
    """What became of a batch."""

    errors: list[NotSent | None]
    topics: list[int]
    """Those that have something new."""


def prepare(messages: Sequence[Message], body_max_bytes: int) -> Batch:
    """Encode a batch; what is too large or cannot be encoded has an error instead."""
    blobs: list[bytes] = []
    errors: list[NotSent | None] = []
    for message in messages:
        blob, error = b"", None
        if len(message.body) > body_max_bytes:
            error = _refused(
                message,
                f"its body has {len(message.body)} bytes, the limit is {body_max_bytes}:"
                " store it elsewhere and send where it is",
            )
        else:
            try:
                blob = encode(message)
            except (TypeError, ValueError) as cause:
                error = _refused(message, str(cause))
        blobs.append(blob)
        errors.append(error)
    return Batch(messages, blobs, errors)


def publish(cx: Connection, batch: Batch, clock: DatabaseClock, *, keeps: bool) -> Published:
    """Write a batch. `keeps`: the log is retained, so what nobody hears is stored too."""
    errors = list(batch.errors)
    at = clock.wall()
    topics: list[int] = []
    for name in batch.topics:
        found = cx.execute(
            "select id, exists (select 1 from source where topic = topic.id) from topic"
            " where name = ?",
            (name,),
        ).fetchone()
        topic, is_heard = found or (0, 0)
        rows: list[object] = []
        if _sort(cx, batch, _Sorting(name, topic, bool(is_heard), errors, rows, at, clock)):
            topics.append(topic)
        if rows and (is_heard or (keeps and topic)):
            _append(cx, topic, rows)
            topics.append(topic)
    return Published(errors, topics)


class _Sorting(Struct):
    """One topic's part of a batch, while it is sorted."""

    name: str
    topic: int
    is_heard: bool
    errors: list[NotSent | None]
    rows: list[object]
    """For the log: key, time, message, again and again."""
    at: int
    clock: DatabaseClock


def _sort(cx: Connection, batch: Batch, to: _Sorting) -> bool:
    """Sort a topic's messages into log rows, errors and `held`; whether some went to `held`."""
    stopped: set[str | None] = set()
    has_held = False
    now = to.clock.wall() / 1_000_000
    for number, message in enumerate(batch.messages):
        if message.topic != to.name:
            continue
        key = message.key
        error = to.errors[number]
        if error is None and stopped and key in stopped:
            error = _refused(message, f"an earlier message of key {key!r} was not sent")
        if error is None and not (to.is_heard or message.unheard):
            error = _unheard(message)
        is_plain = message.group is None and (
            message.deliver_at is None or message.deliver_at <= now
        )
        if error is None and is_plain:
            to.rows += (key, to.at, batch.blobs[number])
        elif error is None:
            error = _hold(cx, message, batch.blobs[number], to)
            has_held = has_held or error is None
        if error is not None:
            to.errors[number] = error
            if key is not None:
                stopped.add(key)
    return has_held


def _append(cx: Connection, topic: int, rows: Sequence[object]) -> None:
    done = 0
    for chunk in _CHUNKS:
        width = chunk * 3
        while len(rows) - done >= width:
            cx.execute(
                f"insert into log_{topic}(key, at, message) values {_VALUES[chunk]}",  # noqa: S608 - numbers
                rows[done : done + width],
            )
            done += width


def _hold(cx: Connection, message: Message, blob: bytes, to: _Sorting) -> NotSent | None:
    """Put a message into `held` of the groups that it is for."""
    groups = [
        (Group(id_, to.topic, name, bool(ordered)), cursor)
        for id_, name, ordered, cursor in cx.execute(
            "select id, name, ordered, cursor from source where topic = ?", (to.topic,)
        ).fetchall()
        if message.group in {None, name}
    ]
    if not groups and message.group is not None:
        return _refused(message, f"there is no group {message.topic}/{message.group}")
    now = to.clock.now()
    see(cx, now)
    due = now if message.deliver_at is None else max(now, to.clock.due(message.deliver_at))
    for group, cursor in groups:
        key = message.key if group.is_ordered else None
        seq = cursor if key is None else _place(cx, group, message, cursor)
        state = SCHEDULED if key is not None and due > now else WAITING
        cx.execute(_HOLD, (group.id, state, seq, key, due, to.at, blob))
        if key is not None and state == WAITING:
            lanes.join(cx, group, key)
            lanes.free(cx, group, [key])
    return None


def _place(cx: Connection, group: Group, message: Message, cursor: int) -> int:
    """Where a message stands in its key's order: at its end, but a parked letter in its place.

    The letter holds its key no more: the redriven message goes first, and holds it again if it
    dies again.
    """
    letters = cx.execute(
        "select hid, seq, message from held where source = ? and key = ? and state in (1, 2)"
        f" and state = {PARKED}",
        (group.id, message.key),
    )
    for hid, seq, blob in letters.fetchall():
        letter = decode(blob)
        if (letter.source, letter.id) == (message.source, message.id):
            cx.execute(f"update held set state = {DEAD} where hid = ?", (hid,))
            return int(seq)
    return cursor


def _refused(message: Message, why: str) -> NotSent:
    return NotSent(f"message {message.id!r} was not sent: {why}", id=message.id)


def _unheard(message: Message) -> NotSent:
    return _refused(
        message,
        f"no group has ever subscribed to {message.topic!r}: check the name, start a service that"
        " listens, or say unheard=True on the event",
    )
