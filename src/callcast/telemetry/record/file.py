"""The file of the record: SQLite, shared by all processes of one broker file.

The one module of telemetry that knows `sqlite3` (named so in the import contract): the record's
other parts are told what it read, and a reader of another kind would replace this file alone.

The file may be lost, its contents are copies: commits are not waited for (``synchronous=NORMAL``
in WAL mode syncs at checkpoints alone), and a killed process loses what it had not written.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from callcast.core.errors import Misuse, Unavailable
from callcast.core.histogram import Histogram
from callcast.core.recorded import RecordedEdge, RecordedSpan
from callcast.telemetry.record.book import COARSE, FINE, Entry

VERSION = 1
SPANS_MAX = 50_000
"""Spans that a file keeps; older ones go first."""
FINE_KEPT = 900.0
"""Seconds that short slots are kept."""
COARSE_KEPT = 7 * 86_400.0
"""Seconds that long slots are kept."""
FILE_MAX_BYTES = 128 * 1024 * 1024
"""SQLite refuses to let the file grow beyond it; a full record is told once, like a broken one."""
LOCK_WAIT = 2.0
"""Seconds that the writing thread waits for other processes' writes."""

_SCHEMA = f"""
create table if not exists edges(
    process text not null, start real not null, span real not null, key text not null,
    since real not null, until real not null, data blob not null,
    primary key(process, start, span, key));
create index if not exists edges_by_span on edges(span, start);
create table if not exists spans(
    id integer primary key, trace_id text not null, correlation_id text not null,
    message_id text not null, start real not null, data blob not null);
create index if not exists spans_by_trace on spans(trace_id);
create index if not exists spans_by_correlation on spans(correlation_id);
create index if not exists spans_by_message on spans(message_id);
pragma user_version = {VERSION};
"""

BROKEN = (sqlite3.Error, OSError, Misuse, msgspec.MsgspecError)
"""What can go wrong with a file of this kind."""


class RecordFile:
    """Writes; opened at the first write, by the thread that writes."""

    def __init__(self, path: str, *, lock_wait: float = LOCK_WAIT) -> None:
        self.path: str = path
        self._lock_wait = lock_wait
        self._connection: sqlite3.Connection | None = None

    def write(self, process: str, entries: Iterable[Entry], spans: Sequence[RecordedSpan]) -> None:
        """Write slots (over their earlier state) and spans in one transaction."""
        connection = self._opened()
        with connection:
            connection.execute("begin immediate")
            connection.executemany(
                "insert or replace into edges values (?, ?, ?, ?, ?, ?, ?)",
                [_row(process, entry) for entry in entries],
            )
            connection.executemany(
                "insert into spans values (null, ?, ?, ?, ?, ?)", map(_span_row, spans)
            )

    def tidy(self, wall: float) -> None:
        """Delete what is too old, or too much."""
        connection = self._opened()
        with connection:
            connection.execute("begin immediate")
            for span, kept in ((FINE, FINE_KEPT), (COARSE, COARSE_KEPT)):
                connection.execute(
                    "delete from edges where span = ? and start < ?", (span, wall - kept)
                )
            connection.execute(
                "delete from spans where id <= (select max(id) from spans) - ?", (SPANS_MAX,)
            )

    def close(self) -> None:
        """Close it; the next write would open it again. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            _make_private(self.path)
            connection = sqlite3.connect(
                self.path, timeout=self._lock_wait, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def read_edges(path: str, span: float, since: float) -> Iterator[tuple[str, Entry]]:
    """Process and slot of all slots of this length that began at `since` or later."""
    with closing(_reader(path)) as connection:
        for process, start, since_, until, data in connection.execute(
            "select process, start, since, until, data from edges where span = ? and start >= ?",
            (span, since),
        ):
            edge = msgspec.msgpack.decode(data, type=RecordedEdge, dec_hook=_histogram)
            yield process, Entry(start, span, since_, until, edge)


def read_spans(path: str, ids: Sequence[str] | None = None) -> Sequence[RecordedSpan]:
    """The spans of these traces, correlation ids or messages; all, when none are named."""
    wanted, values = "", []
    if ids is not None:
        marks = ", ".join("?" * len(ids))
        wanted = " or ".join(
            f"{column} in ({marks})" for column in ("trace_id", "correlation_id", "message_id")
        )
        wanted, values = f"where {wanted}", [*ids, *ids, *ids]
    with closing(_reader(path)) as connection:
        # The columns are ours, the ids are bound.
        rows = connection.execute(f"select data from spans {wanted} order by start", values)  # noqa: S608
        return [msgspec.json.decode(data, type=RecordedSpan) for (data,) in rows]


def _row(process: str, entry: Entry) -> tuple[str, float, float, str, float, float, bytes]:
    edge = entry.edge
    key = repr((edge.caller, edge.callee, edge.name, edge.verb, edge.side))
    data = msgspec.msgpack.encode(edge, enc_hook=_members)
    return process, entry.start, entry.span, key, entry.since, entry.until, data


def _span_row(span: RecordedSpan) -> tuple[str, str, str, float, bytes]:
    data = msgspec.json.encode(span, enc_hook=dict)
    return span.trace_id, span.correlation_id, span.message_id, span.start, data


def _members(histogram: object) -> object:
    if isinstance(histogram, Histogram):
        return [histogram.total, histogram.most, histogram.buckets]
    raise TypeError(type(histogram).__name__)


def _histogram(kind: type, members: object) -> object:
    if kind is not Histogram:
        raise TypeError(kind.__name__)
    total, most, buckets = msgspec.convert(members, tuple[float, float, dict[int, int]])
    histogram = Histogram(buckets, total=total)
    histogram.most = most
    return histogram


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if version not in {0, VERSION}:
        raise Misuse(f"{path} is a record of version {version}: delete it, or name another file")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma journal_size_limit = 1048576")
    (page,) = connection.execute("pragma page_size").fetchone()
    connection.execute(f"pragma max_page_count = {FILE_MAX_BYTES // page}")
    if version == 0:
        connection.executescript(_SCHEMA)


def _reader(path: str) -> sqlite3.Connection:
    """Open for reading only: looking makes no file."""
    if not Path(path).is_file():
        raise Unavailable(f"there is no record {path}")
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=LOCK_WAIT)
    try:
        (version,) = connection.execute("pragma user_version").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise Unavailable(f"{path} cannot be read as a record: {error}") from error
    if version != VERSION:
        connection.close()
        raise Unavailable(f"{path} is no record of this version of callcast")
    return connection


def _make_private(path: str) -> None:
    """A new file is for its owner only; a symbolic link may lead anywhere."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            raise Misuse(f"{path} is a symbolic link; name the file itself")
    except FileNotFoundError:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
