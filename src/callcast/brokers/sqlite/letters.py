"""Dead letters: one for each message, however often it is delivered and dies."""

from __future__ import annotations

from sqlite3 import Connection

from callcast.brokers.sqlite.records import Group
from callcast.brokers.sqlite.schema import DEAD, LETTER
from callcast.brokers.sqlite.wire import decode
from callcast.core.message import Message, is_same


def collapse(cx: Connection, group: Group, message: Message, *, hid: int) -> None:
    """Let the letter that was just written to row `hid` take the place of an earlier one.

    An earlier one that somebody has in hand stays: a redriver is about to take that away. So does
    one with another body under the same id, and one that holds its key.
    """
    identity = (message.source, message.id, hid)
    cx.execute("update held set sender = ?, message_id = ? where hid = ?", identity)
    for earlier, blob in cx.execute(_EARLIER, (group.id, *identity)).fetchall():
        if is_same(decode(blob), message):
            cx.execute("delete from held where hid = ?", (earlier,))


_EARLIER = (
    "select hid, message from held where source = ? and sender = ? and message_id = ?"  # noqa: S608
    f" and {LETTER} and state = {DEAD} and token is null and hid <> ?"
)
