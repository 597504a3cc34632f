"""Publishing: one row in the topic's log, whatever the number of groups.

What is for one group, or for later, goes to `held` of each group that it is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from msgspec import Struct

from callcast.brokers.sqlite import lanes
from callcast.brokers.sqlite.dbclock import SECOND, DatabaseClock, see
from callcast.brokers.sqlite.records import Group
from callcast.brokers.sqlite.schema import DEAD, HELD, IN_LINE, PARKED, SCHEDULED, WAITING
from callcast.brokers.sqlite.wire import decode, encode
from callcast.core.errors import NotSent
from callcast.core.message import Message

_CHUNKS = (64, 16, 4, 1)
"""Rows of one statement: one ``values`` with many rows is 1.3 times as fast as `executemany`."""

_VALUES = {chunk: ", ".join(["(?, ?, ?)"] * chunk) for chunk in _CHUNKS}


class Batch(Struct):
    """A batch on its way into the file."""

    messages: Sequence[Message]
    blobs: list[bytes]
    """One for each message; empty where it has an error."""
    errors: list[NotSent | None]


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


class Publish:
    """One batch going into the file. `keeps`: the log is retained, also what nobody hears."""

    def __init__(self, batch: Batch, clock: DatabaseClock, *, keeps: bool) -> None:
        self._batch = batch
        self._clock = clock
        self._keeps = keeps

    def __call__(self, cx: Connection) -> Published:
        """Write it; may be called again after a roll-back."""
        batch = self._batch
        errors = list(batch.errors)
        names = dict.fromkeys(message.topic for message in batch.messages)
        written = [_Topic(cx, name, self._clock) for name in names]
        for topic in written:
            topic.sort(batch, errors)
            topic.append(keeps=self._keeps)
        return Published(errors, [topic.id for topic in written if topic.has_new])


class _Topic:
    """One topic's part of a batch."""

    def __init__(self, cx: Connection, name: str, clock: DatabaseClock) -> None:
        found = cx.execute(
            "select id, exists (select 1 from source where topic = topic.id) from topic"
            " where name = ?",
            (name,),
        ).fetchone()
        self.id: int = found[0] if found else 0
        self._is_heard = bool(found and found[1])
        self.has_new = False
        self._cx = cx
        self._name = name
        self._clock = clock
        self._at = clock.wall()
        self._rows: list[object] = []  # for the log: key, time, message, again and again

    def sort(self, batch: Batch, errors: list[NotSent | None]) -> None:
        """Sort its messages into rows of the log, rows of `held`, and errors.

        A key stops at its first error: what is behind must not overtake.
        """
        stopped: set[str] = set()
        for number, message in enumerate(batch.messages):
            if message.topic != self._name:
                continue
            key = message.key
            if errors[number] is None:
                if key is not None and key in stopped:
                    why = f"an earlier message of key {key!r} in this batch was not sent"
                    errors[number] = _refused(message, why)
                else:
                    errors[number] = self._place(message, batch.blobs[number])
            if errors[number] is not None and key is not None:
                stopped.add(key)

    def append(self, *, keeps: bool) -> None:
        """Write the rows of the log."""
        if not self.id or not self._rows or not (self._is_heard or keeps):
            return
        done = 0
        for chunk in _CHUNKS:
            width = chunk * 3
            sql = f"insert into log_{self.id}(key, at, message) values {_VALUES[chunk]}"  # noqa: S608
            while len(self._rows) - done >= width:
                self._cx.execute(sql, self._rows[done : done + width])
                done += width
        self.has_new = True

    def _place(self, message: Message, blob: bytes) -> NotSent | None:
        if not self._is_heard and not message.unheard:
            return _refused(
                message,
                f"no group has ever subscribed to {message.topic!r}: check the name, start a"
                " service that listens, or say unheard=True on the event",
            )
        is_later = message.deliver_at is not None and message.deliver_at * SECOND > self._at
        if message.group is not None or is_later:
            return self._hold(message, blob)
        self._rows += (message.key, self._at, blob)
        return None

    def _hold(self, message: Message, blob: bytes) -> NotSent | None:
        """Put a message into `held` of the groups that it is for."""
        groups = [
            (Group(id_, self.id, name, bool(is_ordered)), cursor)
            for id_, name, is_ordered, cursor in self._cx.execute(
                "select id, name, ordered, cursor from source where topic = ?", (self.id,)
            ).fetchall()
            if message.group in {None, name}
        ]
        if not groups and message.group is not None:
            return _refused(message, f"there is no group {message.topic}/{message.group}")
        now = self._clock.now()
        see(self._cx, now)
        due = now if message.deliver_at is None else max(now, self._clock.due(message.deliver_at))
        for group, cursor in groups:
            key = message.key if group.is_ordered else None
            seq = cursor if key is None else self._seq(group, message, cursor)
            state = SCHEDULED if key is not None and due > now else WAITING
            self._cx.execute(
                f"insert into held({HELD}) values (?, ?, ?, ?, ?, ?, 0, 0, ?)",  # noqa: S608
                (group.id, state, seq, key, due, self._at, blob),
            )
            if key is not None and state == WAITING:
                lanes.join(self._cx, group, key)
                lanes.free(self._cx, group, [key])
        self.has_new = True
        return None

    def _seq(self, group: Group, message: Message, cursor: int) -> int:
        """Where a message stands in its key's line: at its end, but a parked letter in its place.

        The letter holds its key no more: the redriven message goes first, and holds it again if
        it dies again.
        """
        letters = self._cx.execute(_PARKED, (group.id, message.key)).fetchall()
        for hid, seq, blob in letters:
            letter = decode(blob)
            if (letter.source, letter.id) == (message.source, message.id):
                self._cx.execute("update held set state = ? where hid = ?", (DEAD, hid))
                return int(seq)
        return cursor


_PARKED = (
    "select hid, seq, message from held where source = ? and key = ?"  # noqa: S608 - constants
    f" and {IN_LINE} and state = {PARKED}"
)


def _refused(message: Message, why: str) -> NotSent:
    return NotSent(f"message {message.id!r} was not sent: {why}", id=message.id)
