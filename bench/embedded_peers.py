"""huey, persist-queue, queue-sqlite and raw sqlite3 doing the work of ``work``.

Each in the way that its documentation shows, with its default durability; each encodes and decodes
with the same msgspec functions.
"""

from __future__ import annotations

import itertools
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import huey
import persistqueue
import queue_sqlite_core
from work import Order, Stopwatch, decode, encode, orders, timed

BATCH = 500
"""Messages of one ``dequeue`` of queue-sqlite: the most of its tries."""
HUEY_POLL = 0.01
"""Seconds between two looks of huey's worker: a tenth of its default."""
ROWS = 100
"""Rows of one transaction of raw sqlite3."""

SETTINGS = {
    "huey": "WAL, synchronous FULL (its default, that of SQLite), results=False",
    "huey without sync": "WAL, synchronous OFF (fsync=False), results=False: no goal",
    "persist-queue": "SQLiteAckQueue, auto_commit, WAL, synchronous FULL: its defaults",
    "queue-sqlite": "WAL, synchronous NORMAL (it has no other), dequeue 500, delete each",
    "raw sqlite3": "WAL, synchronous FULL; one table, uuid4 and JSON, executemany",
}


class Handled:
    """The handler of all peers: count what was decoded."""

    def __init__(self) -> None:
        self.count = 0

    def one(self, body: bytes | str) -> Order:
        order = decode(body)
        self.count += 1
        return order

    def must_be(self, count: int) -> None:
        if self.count != count:
            raise AssertionError(f"handled {self.count} of {count}")


def on_huey(path: Path, count: int, *, fsync: bool | None = None) -> dict[str, float]:
    queue = open_huey(path, fsync=fsync)
    handled, work = Handled(), orders(count)

    @queue.task()
    def handle(body: bytes) -> None:
        handled.one(body)

    with timed() as sent:
        for each in work:
            handle(encode(each))
    with timed() as done:
        while (task := queue.dequeue()) is not None:
            queue.execute(task)
    handled.must_be(count)
    queue.storage.close()
    return figures(count, sent, done)


def open_huey(path: Path, *, fsync: bool | None = None) -> huey.SqliteHuey:
    return huey.SqliteHuey(filename=str(path / "huey.db"), fsync=fsync, results=False)


def on_persist_queue(path: Path, count: int) -> dict[str, float]:
    queue = persistqueue.SQLiteAckQueue(str(path), auto_commit=True)
    handled, work = Handled(), orders(count)
    with timed() as sent:
        for each in work:
            queue.put(encode(each))
    with timed() as done:
        for _ in range(count):
            item = queue.get(block=False, raw=True)
            handled.one(item["data"])
            queue.ack(id=item["pqid"])
    handled.must_be(count)
    queue.close()
    return figures(count, sent, done)


def on_queue_sqlite(path: Path, count: int) -> dict[str, float]:
    queue = queue_sqlite_core.QueueOperation(str(path / "queue.db"))
    queue.init_db()
    handled, work = Handled(), orders(count)
    with timed() as sent:
        for each in work:
            queue.enqueue(queue_sqlite_row(encode(each).decode()))
    with timed() as done:
        while taken := queue.dequeue(BATCH):
            for each in taken:
                handled.one(each["content"])
                queue.delete_message(each["id"])
    handled.must_be(count)
    return figures(count, sent, done)


def queue_sqlite_row(body: str) -> dict[str, object]:
    """What its own ``MessageItem.to_dict_by_core`` makes, without its slow dataclass."""
    return {
        "id": str(uuid.uuid4()),
        "type": "task",
        "status": 0,
        "content": body,
        "createtime": "2026-01-01T00:00:00",
        "updatetime": "2026-01-01T00:00:00",
        "result": "{}",
        "priority": 1,
        "source": "client",
        "destination": "handle",
        "retry_count": 0,
        "expire_time": None,
        "tags": None,
        "metadata": "{}",
    }


def raw_publish(path: Path, count: int, *, rows: int) -> float:
    """Messages a second that plain sqlite3 stores, so many in a transaction."""
    work = orders(count)
    with raw(path) as cx, timed() as watch:
        for part in chunks(work, rows):
            cx.execute("begin immediate")
            cx.executemany(
                "insert into message(id, body) values (?, ?)",
                [(str(uuid.uuid4()), encode(each)) for each in part],
            )
            cx.execute("commit")
    return count / watch.wall


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    cx = sqlite3.connect(path / "raw.db", isolation_level=None)
    cx.execute("pragma journal_mode = wal")
    cx.execute("pragma synchronous = full")
    cx.execute("create table message(seq integer primary key autoincrement, id text, body blob)")
    try:
        yield cx
    finally:
        cx.close()


def chunks(work: Sequence[Order], size: int) -> Iterator[Sequence[Order]]:
    iterator = iter(work)
    while part := list(itertools.islice(iterator, size)):
        yield part


def figures(count: int, sent: Stopwatch, done: Stopwatch) -> dict[str, float]:
    return {
        "publish": count / sent.wall,
        "publish cpu": sent.cpu * 10_000 / count,
        "consume": count / done.wall,
        "consume cpu": done.cpu * 10_000 / count,
    }


PEERS: dict[str, tuple[Callable[[Path, int], dict[str, float]], float]] = {
    "huey": (on_huey, 0.05),
    "huey without sync": (partial(on_huey, fsync=False), 0.1),
    "persist-queue": (on_persist_queue, 0.04),
    "queue-sqlite": (on_queue_sqlite, 0.5),
}
"""Each with its share of the messages: so many that it works for about as long as the others."""
