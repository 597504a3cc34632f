"""The broker's face: errors of their kind, closing at any moment, waking."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import pytest
from sqlite_bench import Holdup, ids
from sqlite_child import SOURCE, broker_at, message

from callcast.brokers.sqlite import SqliteBroker, backup, files
from callcast.brokers.sqlite.jobs import Closed, WriteFailed
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


async def test_who_opens_a_file_that_others_write_tries_for_the_lock_every_few_milliseconds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own waiting backs off to 100 ms, and finds no gap between heavy writers."""
    await (await opened(path)).close()
    tries: list[Path] = []
    enough = threading.Event()
    connect = files.connect_writer

    def counted(path: Path, synchronous: files.Synchronous) -> Connection:
        tries.append(path)
        if len(tries) == 10:
            enough.set()
        return connect(path, synchronous)

    monkeypatch.setattr(files, "connect_writer", counted)
    broker = broker_at(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        publishing = asyncio.ensure_future(broker.publish([message("m-1")]))
        assert await asyncio.to_thread(enough.wait, 1.0), "it gave the waiting to SQLite"
    await publishing
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


async def test_a_write_that_failed_names_its_cause_so_that_it_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await opened(path)

    async def fails(*_: object, **__: object) -> None:
        raise WriteFailed("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(broker._engine().writer, "do", fails)
        with pytest.raises(Unpublished) as caught:
            await broker.publish([message("a")])
    [error] = caught.value.errors
    assert isinstance(error, NotSent)
    assert isinstance(error.__cause__, WriteFailed)
    with pytest.raises(Unpublished) as refused:
        await broker.publish([message("b", topic="nobody.hears")])
    [error] = refused.value.errors
    assert isinstance(error, NotSent)
    assert error.__cause__ is None
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
