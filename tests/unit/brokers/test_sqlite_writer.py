"""The writer: groups, failures, cancellations, locks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import pytest
from sqlite_bench import Holdup

from callcast.brokers.sqlite.jobs import Blocking, Closed, WriteFailed
from callcast.brokers.sqlite.writer import TIDY_EVERY, Writer, translated
from callcast.core.errors import Misuse


class Desk:
    """A writer on a table of numbers."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "numbers.db"
        self.connects = 0
        self.errors: list[Exception] = []
        with closing(sqlite3.connect(self.path)) as cx:
            cx.execute("pragma journal_mode = wal")
            cx.execute("create table numbers(n unique)")
        self.writer = Writer(self.connect, lock_wait=0.1, name="desk")

    def connect(self) -> Connection:
        self.connects += 1
        if self.errors:
            raise self.errors.pop()
        return sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=0.0
        )

    def numbers(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as cx:
            return [n for (n,) in cx.execute("select n from numbers order by n")]


def put(number: int) -> Callable[[Connection], int]:
    def run(cx: Connection) -> int:
        cx.execute("insert into numbers values (?)", (number,))
        return number

    return run


@pytest.fixture
def desk(tmp_path: Path) -> Generator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.writer.stop()
    desk.writer.join()


async def test_jobs_that_wait_share_a_transaction(desk: Desk) -> None:
    commits: list[int] = []

    def count(cx: Connection) -> None:
        commits.append(cx.execute("select count(*) from numbers").fetchone()[0])

    holdup = Holdup(desk.writer)
    jobs = [asyncio.ensure_future(desk.writer.do(put(n))) for n in range(5)]
    await asyncio.sleep(0)
    with closing(sqlite3.connect(desk.path)) as other:
        before = other.execute("pragma data_version").fetchone()
        desk.writer.start(count)
        holdup.go.set()
        assert await asyncio.gather(*jobs) == [0, 1, 2, 3, 4]
        desk.writer.start(count).wait(5)
        assert other.execute("pragma data_version").fetchone() != before
    assert commits == [5, 5]


async def test_a_job_that_fails_spoils_no_other_of_its_group(desk: Desk) -> None:
    applied: list[int] = []
    desk.writer.start(put(1)).wait(5)
    holdup = Holdup(desk.writer)
    jobs = [asyncio.ensure_future(desk.writer.do(put(n), applied.append)) for n in (0, 1, 2)]
    await asyncio.sleep(0)
    holdup.go.set()
    first, second, third = await asyncio.gather(*jobs, return_exceptions=True)
    assert (first, third) == (0, 2)
    assert isinstance(second, WriteFailed)
    assert second.is_certain
    assert applied == [0, 2]  # memory changes after the commit, once
    assert desk.numbers() == [0, 1, 2]


async def test_a_job_cancelled_while_it_waits_does_not_run(desk: Desk) -> None:
    holdup = Holdup(desk.writer)
    job = asyncio.ensure_future(desk.writer.do(put(1), is_voidable=True))
    kept = asyncio.ensure_future(desk.writer.do(put(2)))
    await asyncio.sleep(0)
    job.cancel()
    kept.cancel()
    await asyncio.wait([job, kept])
    holdup.go.set()
    desk.writer.start(put(3)).wait(5)
    assert desk.numbers() == [2, 3]


async def test_a_result_that_nobody_waits_for_is_handed_back_before_anything_else(
    desk: Desk,
) -> None:
    order: list[str] = []
    go, began = threading.Event(), threading.Event()

    def slow(cx: Connection) -> int:
        began.set()
        assert go.wait(5)
        return 7

    def orphaned(result: int) -> None:
        desk.writer.start(lambda _: order.append(f"back {result}"), is_urgent=True)

    job = asyncio.ensure_future(desk.writer.do(slow, orphaned=orphaned, is_voidable=True))
    await asyncio.to_thread(began.wait, 5)
    job.cancel()
    await asyncio.wait([job])
    behind = desk.writer.start(lambda _: order.append("behind"))
    go.set()
    behind.wait(5)
    assert order == ["back 7", "behind"]


async def test_a_result_whose_loop_is_closed_is_handed_back(desk: Desk) -> None:
    back: list[int] = []
    waiting: list[asyncio.Future[int]] = []
    holdup = Holdup(desk.writer)

    async def leave() -> None:
        waiting.append(asyncio.ensure_future(desk.writer.do(put(1), orphaned=back.append)))
        await asyncio.sleep(0)

    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loop.call_soon(loop.stop)
        loop.close()

    await asyncio.to_thread(elsewhere)
    holdup.go.set()
    desk.writer.start(put(2)).wait(5)
    assert back == [1]


async def test_a_job_that_ends_its_group_is_committed_before_the_next_begins(desk: Desk) -> None:
    seen: list[str] = []
    holdup = Holdup(desk.writer)
    desk.writer.start(put(1), lambda _: seen.append("changed"), ends_group=True)
    last = desk.writer.start(lambda _: seen.append("next"))
    holdup.go.set()
    last.wait(5)
    assert seen == ["changed", "next"]


async def test_a_file_that_cannot_be_opened_is_tried_again(desk: Desk) -> None:
    desk.errors = [sqlite3.OperationalError("no luck"), Misuse("not like this")]
    with pytest.raises(Misuse):
        await desk.writer.do(put(1))
    with pytest.raises(WriteFailed, match="no luck"):
        await desk.writer.do(put(1))
    assert await desk.writer.do(put(1)) == 1
    assert desk.connects == 3


async def test_a_lock_that_does_not_come_fails_the_whole_group_once(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        jobs = [asyncio.ensure_future(desk.writer.do(put(n))) for n in range(20)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(one, WriteFailed) and one.is_certain for one in results)
    assert await desk.writer.do(put(1)) == 1


async def test_after_the_end_nothing_is_taken(desk: Desk) -> None:
    last = desk.writer.start(put(1))
    desk.writer.stop()
    desk.writer.stop()
    with pytest.raises(Closed):
        await desk.writer.do(put(2))
    desk.writer.join()
    assert last.wait(0.0) == 1
    assert desk.numbers() == [1]


def test_a_disk_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    job = Blocking[int](put(1))
    with pytest.raises(WriteFailed, match="no answer") as caught:
        job.wait(0.0)
    assert not caught.value.is_certain


@pytest.mark.parametrize(
    ("code", "is_committing", "is_certain", "remedy"),
    [
        (sqlite3.SQLITE_FULL, True, True, "make room"),
        (sqlite3.SQLITE_IOERR_FSYNC, True, False, "disk failed"),
        (sqlite3.SQLITE_IOERR_FSYNC, False, True, "disk failed"),
        (sqlite3.SQLITE_READONLY_DBMOVED, False, True, "read-only"),
        (sqlite3.SQLITE_CORRUPT, False, True, "backup"),
    ],
)
def test_errors_say_whether_it_was_done_and_what_to_do(
    code: int, is_committing: bool, is_certain: bool, remedy: str
) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    said = translated(error, is_committing=is_committing)
    assert said.is_certain is is_certain
    assert remedy in str(said)


async def test_a_commit_that_fails_is_rolled_back_and_may_have_happened(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        """A connection whose commits fail, and whose roll-back does too."""

        in_transaction = True
        is_closed = False

        def execute(self, sql: str, *_: object) -> None:
            if sql in {"commit", "rollback"}:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error

        def close(self) -> None:
            self.is_closed = True

    failing = Failing()
    real = desk.connect
    monkeypatch.setattr(desk.writer, "_connect", lambda: failing)
    with pytest.raises(WriteFailed) as caught:
        await desk.writer.do(lambda _: None)
    assert not caught.value.is_certain
    assert failing.is_closed
    monkeypatch.setattr(desk.writer, "_connect", real)
    assert await desk.writer.do(put(1)) == 1


async def test_the_log_is_moved_into_the_file_while_nobody_waits(desk: Desk) -> None:
    for number in range(TIDY_EVERY - 1):
        await desk.writer.do(put(number))
    log = desk.path.with_name(desk.path.name + "-wal")
    before = log.stat().st_size
    await desk.writer.do(put(TIDY_EVERY))
    desk.writer.start(lambda _cx: None).wait(5)  # comes after what the thread does by itself
    for number in range(TIDY_EVERY + 1, TIDY_EVERY + 10):
        await desk.writer.do(put(number))
    # Written again from its start: what lay in it is in the file.
    assert log.stat().st_size < before * (1 + 3 / TIDY_EVERY)


async def test_a_log_that_cannot_be_moved_loses_nothing(desk: Desk) -> None:
    class Failing(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    def connect() -> Connection:
        desk.connects += 1
        return sqlite3.connect(
            desk.path, isolation_level=None, check_same_thread=False, factory=Failing
        )

    writer = Writer(connect, lock_wait=0.1, name="failing")
    for number in range(TIDY_EVERY + 5):
        await writer.do(put(number))
    writer.stop()
    writer.join()
    assert desk.numbers() == list(range(TIDY_EVERY + 5))
    assert desk.connects == 2
