"""The writer, the watcher, who is alive, and what the broker makes of their errors."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import pytest
from sqlite_bench import ids
from sqlite_child import SOURCE, broker_at, message

from callcast.brokers.sqlite import SqliteBroker, backup, dbclock, live
from callcast.brokers.sqlite.dbclock import DatabaseClock
from callcast.brokers.sqlite.jobs import Blocking, Closed, WriteFailed
from callcast.brokers.sqlite.live import Live
from callcast.brokers.sqlite.writer import Writer, translated
from callcast.core.errors import Misuse, NotSent, Unanswered, Unavailable, Unpublished
from callcast.core.outcome import DONE, Dead
from callcast.ports.broker import (
    Browses,
    Inspects,
    Parks,
    Part,
    Pauses,
    Retires,
    Rewinds,
    Schedules,
    Source,
    Unsettled,
    need,
)
from callcast.testing.clock import ManualClock


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


class Holdup:
    """Keeps the writer's thread, so that jobs gather behind it."""

    def __init__(self, writer: Writer) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.job = writer.start(self._run)
        assert self.began.wait(5)

    def _run(self, cx: Connection) -> None:
        self.began.set()
        assert self.go.wait(5)


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


# Who is alive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "broker.db-live"


def test_a_broker_is_alive_until_it_closes(folder: Path) -> None:
    one, other = Live(folder), Live(folder)
    one.open()
    other.open()
    assert other.is_alive(one.instance)
    assert other.is_alive(other.instance)
    assert not other.is_alive("never")
    one.close()
    one.close()
    assert not other.is_alive(one.instance)
    other.close()
    assert not folder.exists()


def test_the_files_of_the_dead_are_removed(folder: Path) -> None:
    one, other = Live(folder), Live(folder)
    one.open()
    other.open()
    one.forget()  # as the kernel does when a process dies
    assert len(list(folder.iterdir())) == 4
    other.nudge([1])  # nobody listens there any more
    assert len(list(folder.iterdir())) == 2
    other.close()


def test_what_is_not_ours_to_judge_counts_as_alive(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Live(folder)
    one.open()

    def denied(*_: object, **__: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        assert one.is_alive("somebody")
    one.close()


def test_nudges_say_in_which_topics_there_is_something(folder: Path) -> None:
    one, other = Live(folder), Live(folder)
    one.open()
    other.open()
    assert other.heard() == set()
    one.nudge([1, 2])
    one.nudge([2, 3])
    assert other.heard() == {1, 2, 3}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for text in (b"", b"odd"):
            stranger.sendto(text, other._address(f"{other.instance}.sock"))
            assert other.heard() is None
    for _ in range(1_000):  # more than its buffer holds
        one.nudge([4])
    assert other.heard() == {4}
    one.close()
    one.nudge([1])  # closed: nothing happens
    assert one.heard() == set()
    other.close()


def test_without_short_paths_sockets_have_long_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PROC", Path("/nowhere"))
    one = Live(folder)
    one.open()
    assert one._address("a.sock") == str(folder / "a.sock")
    one.close()


def test_a_folder_that_cannot_be_ours_is_refused(folder: Path) -> None:
    folder.symlink_to(folder.parent)
    with pytest.raises(Misuse):
        Live(folder).open()
    folder.unlink()
    folder.write_text("a file")
    with pytest.raises(Unavailable):
        Live(folder).open()


def test_a_folder_that_vanishes_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir
    times = iter(range(20))

    def mkdir(self: Path, *_: object, **__: object) -> None:
        if next(times) >= 3:
            real(self)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    one = Live(folder)
    one.open()
    one.close()
    times = iter([0] * 20)
    with pytest.raises(Unavailable, match="again and again"):
        Live(folder).open()


def test_a_lock_that_cannot_be_published_is_dropped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(Unavailable, match="No space"):
            Live(folder).open()
    with monkeypatch.context() as patch:
        patch.setattr(os, "chmod", full)
        with pytest.raises(Unavailable, match="No space"):
            Live(folder).open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# The clock


def test_the_clock_goes_on_where_it_was_on_the_same_boot(tmp_path: Path) -> None:
    cx = sqlite3.connect(":memory:", isolation_level=None)
    cx.execute("create table clock(id integer primary key, boot, offset integer, seen integer)")
    manual = ManualClock(now=10.0, wall=1_000.0)
    first, second = DatabaseClock(manual), DatabaseClock(manual)
    first.anchor(cx)
    assert first.now() == 1_000_000_000
    manual.step_wall(-500.0)
    second.anchor(cx)
    assert second.now() == first.now()
    assert second.due(manual.wall() + 1.0) == second.now() + 1_000_000
    assert second.shown(second.now() + 2_000_000) == manual.wall() + 2.0
    dbclock.see(cx, first.now() + 5)
    third = DatabaseClock(ManualClock(now=2.0, wall=900.0))
    third.anchor(cx)  # its own time would step back
    assert third.now() == first.now() + 5
    cx.close()


def test_a_machine_that_does_not_tell_its_boots_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbclock, "_BOOT_ID", Path("/nowhere"))
    assert dbclock.boot_id() == ""


# The broker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


async def opened(path: Path, **more: object) -> SqliteBroker:
    broker = broker_at(path, **more)
    await broker.ensure([], [SOURCE])
    return broker


def test_it_has_its_abilities(path: Path) -> None:
    broker = broker_at(path)
    for ability in (Browses, Inspects, Parks, Pauses, Retires, Rewinds, Schedules):
        assert need(broker, ability) is broker
    assert broker.delay_max == float("inf")
    assert broker.traits.name == "sqlite"
    assert not path.exists()


async def test_a_durability_that_is_none_is_refused(path: Path) -> None:
    with pytest.raises(Misuse, match="synchronous"):
        broker_at(path, synchronous="off")


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
async def test_the_durability_is_what_was_asked_for(
    path: Path, synchronous: str, level: int
) -> None:
    broker = await opened(path, synchronous=synchronous)
    writer = broker._engine().writer
    assert await writer.do(lambda cx: cx.execute("pragma synchronous").fetchone()[0]) == level
    await broker.close()


async def test_a_group_that_is_not_there_is_misuse(path: Path) -> None:
    broker = await opened(path)
    with pytest.raises(Misuse, match="ensure it first"):
        await broker.consume(Source("t", "nobody"))
    with pytest.raises(Misuse, match="use letters"):
        await broker.ensure(["t*"], [])
    await broker.close()


async def test_the_log_is_read_where_it_is_retained_only(path: Path) -> None:
    broker = await opened(path)
    with pytest.raises(Misuse, match="retain"):
        await broker.read("t")
    await broker.close()
    broker = await opened(path, retain=1_000.0)
    consumer = await broker.consume(SOURCE)
    for number in range(40):
        await broker.publish([message(f"m{number}")])
        await consumer.settle([(one, DONE) for one in await consumer.fetch(1, 1.0)])
    seen: list[str] = []
    after = ""
    while page := await broker.read("t", after=after, limit=15):
        seen += [one.message.id for one in page]
        after = page[-1].position
    assert seen == [f"m{n}" for n in range(40)]
    await broker.close()


async def test_a_commit_of_unknown_end_is_unanswered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await opened(path)
    consumer = await broker.consume(SOURCE)
    await broker.publish([message("held")])
    held = await consumer.fetch(1, 1.0)
    writer = broker._engine().writer

    async def fails(*_: object, **__: object) -> None:
        raise WriteFailed("disk I/O error", is_certain=False)

    def cannot_start(*_: object, **__: object) -> None:
        raise WriteFailed("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "do", fails)
        patch.setattr(writer, "start", cannot_start)
        with pytest.raises(Unpublished) as caught:
            await broker.publish([message("a")])
        [error] = caught.value.errors
        assert isinstance(error, Unanswered)
        assert error.id == "a"
        with pytest.raises(Unavailable, match="not renewed"):
            consumer.renew(held)
        with pytest.raises(Unavailable):
            await broker.pause(SOURCE)
    await consumer.settle([(one, DONE) for one in held])
    await broker.close()


async def test_what_comes_after_the_close_is_an_error_of_its_kind(path: Path) -> None:
    broker = await opened(path)
    consumer = await broker.consume(SOURCE)
    await broker.publish([message("a")])
    held = await consumer.fetch(1, 1.0)
    engine = broker._engine()
    await broker.close()
    with pytest.raises(NotSent):
        await broker.lag(SOURCE)
    with pytest.raises(Unsettled) as caught:
        await consumer.settle([(held[0], DONE)])
    assert caught.value.lost == tuple(held)
    consumer.renew(held)
    assert list(await consumer.fetch(1, 1.0)) == []
    await consumer.close()
    with pytest.raises(Closed):
        await engine.read(lambda _: None)


async def test_a_close_meets_every_step_of_the_others(path: Path) -> None:
    """Calls under way when the broker closes end, one way or the other."""
    for turns in range(8):
        broker = await opened(path)
        consumer = await broker.consume(SOURCE)
        calls = [
            asyncio.ensure_future(broker.publish([message("a")])),
            asyncio.ensure_future(consumer.fetch(10, 0.0)),
            asyncio.ensure_future(broker.lag(SOURCE)),
            asyncio.ensure_future(broker.consume(SOURCE)),
            asyncio.ensure_future(broker.ensure([], [SOURCE])),
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        await broker.close()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(result, Exception) or isinstance(result, NotSent), result

    broker = await opened(path)
    assert (await broker.lag(SOURCE)).leased == 0
    await broker.close()


async def test_a_settle_right_behind_a_renewal_knows_the_parted_lease(path: Path) -> None:
    broker = await opened(path)
    consumer = await broker.consume(SOURCE)
    await broker.publish([message("a"), message("b")])
    a, b = await consumer.fetch(2, 1.0)
    holdup = Holdup(broker._engine().writer)
    renewing = asyncio.ensure_future(asyncio.to_thread(consumer.renew, [a]))
    while broker._engine().writer._jobs.empty():
        await asyncio.sleep(0.001)
    settling = asyncio.ensure_future(consumer.settle([(a, DONE), (b, DONE)]))
    await asyncio.sleep(0)
    holdup.go.set()
    await asyncio.gather(renewing, settling)  # none is lost
    assert (await broker.lag(SOURCE)).leased == 0
    await broker.close()


async def test_who_waits_for_a_group_that_retires_is_told(path: Path) -> None:
    broker = await opened(path)
    consumer = await broker.consume(SOURCE)
    waiting = asyncio.ensure_future(consumer.fetch(10, 100.0))
    await asyncio.sleep(0.01)
    await broker.retire(SOURCE)
    with pytest.raises(Unavailable, match="retired"):
        await waiting
    await broker.close()


async def test_a_second_broker_in_the_process_leaves_the_locks_of_the_first_alone(
    path: Path,
) -> None:
    """Closing any descriptor of a file drops all POSIX locks that a process has on it."""
    probe = "import sqlite3, sys; cx = sqlite3.connect(sys.argv[1], timeout=0.0);"
    probe += "print(cx.execute('pragma journal_mode = delete').fetchone()[0])"

    async def locked() -> bool:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", probe, str(path), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await child.communicate()
        return b"database is locked" in errors

    first = await opened(path)
    assert await locked()
    second = await opened(path)
    assert await locked()
    await second.close()
    assert await locked()
    await first.publish([message("a")])
    await first.close()


async def test_dead_letters_are_woken_for(path: Path) -> None:
    broker = await opened(path)
    worker = await broker.consume(SOURCE)
    letters = await broker.consume(SOURCE, part=Part.DEAD)
    waiting = asyncio.ensure_future(letters.fetch(10, 10.0))
    await broker.publish([message("a")])
    await worker.settle([(one, Dead("x")) for one in await worker.fetch(1, 1.0)])
    assert ids(await waiting) == ["a"]
    await broker.close()


async def test_two_loops_use_one_broker_after_each_other(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    broker = broker_at(path)

    async def first() -> None:
        await broker.ensure([], [SOURCE])
        await broker.publish([message("a")])
        consumer = await broker.consume(SOURCE)
        asyncio.ensure_future(consumer.fetch(10, 100.0)).cancel()
        waiting = asyncio.ensure_future((await broker.consume(SOURCE)).fetch(10, 100.0))
        await asyncio.sleep(0.05)
        assert waiting.done() or waiting.cancel()

    async def second() -> list[str]:
        await broker.publish([message("b")])
        await broker.close()
        return []

    await asyncio.to_thread(asyncio.run, first())
    await asyncio.to_thread(asyncio.run, second())
    again = await opened(path)
    assert (await again.lag(SOURCE)).ready == 2
    await again.close()


async def test_a_copy_of_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database, but long enough for a header" * 30)
    with pytest.raises(Unavailable):
        backup(broken, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


async def test_the_watcher_survives_a_file_that_it_cannot_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await opened(path)
    watcher = broker._engine()._watcher

    def broken(cx: Connection) -> None:
        cx.execute("select * from nothing")

    with pytest.raises(WriteFailed, match="nothing"):
        await broker._engine().read(broken)

    def misuse(cx: Connection) -> None:
        raise Misuse("said so")

    with pytest.raises(Misuse):
        await broker._engine().read(misuse)
    ticked = threading.Event()
    real = watcher._look_around

    def look(cx: Connection) -> None:
        if not ticked.is_set():
            ticked.set()
            raise sqlite3.OperationalError("out of luck")
        real(cx)

    monkeypatch.setattr(watcher, "_look_around", look)
    await broker.publish([message("a")])
    assert await asyncio.to_thread(ticked.wait, 5)
    assert (await broker.lag(SOURCE)).ready == 1
    await broker.close()
