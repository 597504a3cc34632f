"""Topics and groups: making, comparing, pausing and ending them."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from callcast.brokers.sqlite import lanes, look, reap
from callcast.brokers.sqlite.records import Group
from callcast.brokers.sqlite.schema import DEAD, PARKED, create_log
from callcast.core.errors import Misuse
from callcast.core.names import checked_name
from callcast.ports.broker import Difference, Source, Start


def check_names(topics: Sequence[str], sources: Sequence[Source]) -> None:
    """Raise `Misuse` for a name that is none."""
    for topic in topics:
        checked_name(topic, "topic")
    for source in sources:
        checked_name(source.topic, "topic")
        checked_name(source.group, "group")


def ensure(cx: Connection, topics: Sequence[str], sources: Sequence[Source]) -> list[int]:
    """Make what is missing; raises `Misuse` naming every group that is otherwise."""
    other = [text for source in sources for text in _otherwise(cx, source)]
    if other:
        raise Misuse("; ".join(other))
    for topic in topics:
        _topic(cx, topic)
    for source in sources:
        number = _topic(cx, source.topic)
        cx.execute(
            "insert or ignore into source(topic, name, ordered, lanes, start, cursor)"
            " values (?, ?, ?, ?, ?, ?)",
            (
                number,
                source.group,
                source.ordered,
                source.lanes,
                source.start.value,
                0 if source.start is Start.EARLIEST else _newest(cx, number),
            ),
        )
    return []


def differences(
    cx: Connection, topics: Sequence[str], sources: Sequence[Source]
) -> list[Difference]:
    """Each topic or group that is missing or otherwise."""
    there = {name for (name,) in cx.execute("select name from topic").fetchall()}
    wanted = dict.fromkeys([*topics, *(source.topic for source in sources)])
    found = [
        Difference(topic, f"topic {topic!r} is missing", is_missing=True)
        for topic in wanted
        if topic not in there
    ]
    for source in sources:
        if look.find(cx, source) is None:
            found.append(Difference(str(source), f"group {source} is missing", is_missing=True))
        others = _otherwise(cx, source)
        found += [Difference(str(source), text, is_missing=False) for text in others]
    return found


def pause(cx: Connection, group: Group, *, is_paused: bool) -> list[int]:
    """Stop or go on handing out; the topic to look at."""
    cx.execute("update source set paused = ? where id = ?", (is_paused, group.id))
    return [group.topic]


def unpark(cx: Connection, group: Group, key: str) -> list[int]:
    """Turn the parked letters of a key into plain ones; the topic to look at."""
    cx.execute(
        f"update held set state = {DEAD} where source = ? and key = ? and state in (1, 2)"  # noqa: S608
        f" and state = {PARKED}",
        (group.id, key),
    )
    lanes.free(cx, group, [key])
    return [group.topic]


def retire(cx: Connection, source: Source) -> list[int]:
    """Delete a group with all that waits for it; the topic to look at."""
    group = look.find(cx, source)
    if group is None:
        return []
    for table in ("lease", "held", "queue"):
        cx.execute(f"delete from {table} where source = ?", (group.id,))  # noqa: S608 - ours
    cx.execute("delete from source where id = ?", (group.id,))
    if cx.execute("select 1 from source where topic = ?", (group.topic,)).fetchone() is None:
        # Nobody listens any more: what only this group had not passed goes with it.
        cx.execute(f"delete from {group.log}")  # noqa: S608 - a number
    else:
        reap.trim(cx, group.topic, None)
    return [group.topic]


def _topic(cx: Connection, name: str) -> int:
    row = cx.execute("select id from topic where name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    topic = cx.execute("insert into topic(name) values (?)", (name,)).lastrowid or 0
    create_log(cx, topic)
    return topic


def _newest(cx: Connection, topic: int) -> int:
    """The highest number that the log ever had, also when it is empty now."""
    row = cx.execute("select seq from sqlite_sequence where name = ?", (f"log_{topic}",)).fetchone()
    return 0 if row is None else int(row[0])


def _otherwise(cx: Connection, source: Source) -> list[str]:
    row = cx.execute(
        "select ordered, lanes from source join topic on topic.id = source.topic"
        " where topic.name = ? and source.name = ?",
        (source.topic, source.group),
    ).fetchone()
    if row is None:
        return []
    return [
        f"group {source} exists with {name}={is_so!r}, wanted is {name}={wanted!r}: drain and"
        " retire it, or mend the contract"
        for name, is_so, wanted in (
            ("ordered", bool(row[0]), source.ordered),
            ("lanes", row[1], source.lanes),
        )
        if is_so != wanted
    ]
