"""Disks that are full, read-only, slow or of the wrong kind; clocks that jump; foreign files."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_child import SOURCE, broker_at, message

from callcast.brokers.sqlite import SqliteBroker, backup, files
from callcast.brokers.sqlite.engine import TRIM_EVERY
from callcast.core.errors import Misuse, NotSent, Unavailable, Unpublished
from callcast.core.outcome import DONE, Later
from callcast.ports.broker import Consumer, Lag, Unsettled
from callcast.testing.clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def small_disk() -> Generator[Path]:
    """A file system of four megabytes that is really filled. Needs the right to mount."""
    folder = Path(tempfile.mkdtemp(prefix="callcast-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        if mounted.returncode != 0:
            assert os.environ.get("CI") != "true", f"CI must be able to mount: {mounted.stderr}"
            pytest.skip(f"only root can mount a small disk: {mounted.stderr.strip()}")
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder)


async def opened(path: Path, **more: object) -> SqliteBroker:
    broker = broker_at(path, **more)
    await broker.ensure([], [SOURCE])
    return broker


async def names(consumer: Consumer) -> list[str]:
    found: list[str] = []
    while taken := await consumer.fetch(100, 0.0):
        found += [one.message.id for one in taken]
        await consumer.settle([(one, DONE) for one in taken])
    return found


async def test_a_disk_that_fills_up_is_an_error_and_nothing_else(small_disk: Path) -> None:
    broker = await opened(small_disk / "broker.db")
    consumer = await broker.consume(SOURCE)
    await broker.publish([message("first", body=b"x" * 500_000)])
    [first] = await consumer.fetch(1, 1.0)
    acknowledged: list[str] = []
    refused: list[str] = []  # by `NotSent`, saying what to do
    for number in range(100):
        batch = [message(f"{number}-{one}", body=b"x" * 20_000) for one in range(10)]
        try:
            await broker.publish(batch)
        except Unpublished as error:
            refused += [
                one.id or ""
                for one in error.errors
                if isinstance(one, NotSent) and "make room" in str(one)
            ]
        else:
            acknowledged += [one.id for one in batch]
        if len(refused) > 30:
            break
    assert acknowledged
    assert len(refused) > 30
    fill(small_disk / "ballast")
    with pytest.raises(Unsettled) as caught:
        await consumer.settle([(first, Later(0.0))])  # copies the message: there is no room
    assert list(caught.value.failed) == [first]  # still ours: settle it again
    lag = await broker.lag(SOURCE)
    assert (lag.ready, lag.leased) == (len(acknowledged), 1)
    # Space returns, and so does the broker.
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    await consumer.settle([(first, DONE)])
    await broker.publish([message("last")])
    assert await names(consumer) == [*acknowledged, "last"]
    await broker.close()


async def test_a_disk_that_is_full_from_the_start_says_so(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    broker = broker_at(small_disk / "broker.db")
    with pytest.raises(Unavailable):
        await broker.ensure([], [SOURCE])
    (small_disk / "ballast").unlink()
    await broker.ensure([], [SOURCE])
    await broker.publish([message("a")])
    await broker.close()


async def test_a_disk_that_turns_read_only_says_so(small_disk: Path) -> None:
    path = small_disk / "broker.db"
    broker = await opened(path)
    await broker.publish([message("a")])
    await broker.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    broker = broker_at(path)
    with pytest.raises(Unpublished, match=os.strerror(errno.EROFS)) as caught:
        await broker.publish([message("b")])
    assert isinstance(caught.value.errors[0], NotSent)
    with pytest.raises(Unavailable, match=os.strerror(errno.EROFS)):
        await broker.consume(SOURCE)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert await names(await broker.consume(SOURCE)) == ["a"]
    await broker.close()


def fill(ballast: Path) -> None:
    """Take what is left of a disk, to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while file.write(b"x" * size):
                    continue
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


async def test_a_folder_that_is_missing_says_so(tmp_path: Path) -> None:
    broker = broker_at(tmp_path / "nowhere" / "broker.db")
    with pytest.raises(Unavailable, match="nowhere"):
        await broker.ensure([], [SOURCE])
    await broker.close()


async def test_a_slow_disk_does_not_stop_the_event_loop(path: Path) -> None:
    broker = await opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")  # the disk of another process: a commit takes 0.5 s
        publishing = asyncio.ensure_future(broker.publish([message("a")]))
        longest, until = 0.0, time.monotonic() + 0.5
        while time.monotonic() < until:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        assert not publishing.done()
        other.execute("rollback")
        await publishing
    # The bound is wide for a loaded machine; waiting for the lock in the loop would take 500 ms.
    assert longest < 0.25
    await broker.close()


async def test_another_process_that_keeps_the_lock_is_an_error_in_time(path: Path) -> None:
    broker = await opened(path, lock_wait=0.2)
    consumer = await broker.consume(SOURCE)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(Unpublished, match="locked"):
            await broker.publish([message("a")])
        with pytest.raises(Unavailable, match="locked"):
            await consumer.fetch(1, 0.0)
        with pytest.raises(Unavailable, match="locked"):
            await consumer.close()
    assert await names(await broker.consume(SOURCE)) == []
    await broker.close()


async def test_files_are_for_their_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        broker = await opened(path)
        await broker.publish([message("a")])
        live = path.with_name("broker.db-live")
        there = [path, *path.parent.glob("broker.db-???"), *live.iterdir()]
        assert len(there) == 5
        assert {oct(one.stat().st_mode & 0o777) for one in there} == {"0o600"}
        assert oct(live.stat().st_mode & 0o777) == "0o700"
        await broker.close()
    finally:
        os.umask(before)
    assert [one.name for one in path.parent.iterdir()] == ["broker.db"]


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-live"])
async def test_symbolic_links_are_refused(path: Path, ending: str) -> None:
    elsewhere = path.with_name("elsewhere")
    if ending == "-live":
        elsewhere.mkdir()
    path.with_name(path.name + ending).symlink_to(elsewhere)
    broker = broker_at(path)
    with pytest.raises(Misuse, match="symbolic link"):
        await broker.ensure([], [SOURCE])
    await broker.close()
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


async def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    broker = broker_at(path)
    with pytest.raises(Misuse, match="not a regular file"):
        await broker.ensure([], [SOURCE])
    await broker.close()


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:31 / /mnt/shared rw,relatime shared:2 - nfs4 server:/export rw
37 36 8:2 / /mnt/shared/local rw,relatime shared:3 - ext4 /dev/sda2 rw
38 22 0:32 / /mnt/with\\040space rw,relatime shared:4 - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/srv/broker.db", None),
        ("/mnt/shared/broker.db", "nfs4"),
        ("/mnt/shared/a/b/broker.db", "nfs4"),
        ("/mnt/sharedness/broker.db", None),
        ("/mnt/shared/local/broker.db", None),
        ("/mnt/with space/broker.db", "cifs"),
    ],
)
def test_a_network_file_system_is_recognised(file: str, kind: str | None) -> None:
    assert files.network_filesystem(Path(file), MOUNTS) == kind


async def test_a_network_file_system_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = path.with_name("mountinfo")
    mounts.write_text(f"36 1 0:31 / {path.parent} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(files, "_MOUNTS", mounts)
    broker = broker_at(path)
    with pytest.raises(Misuse, match="network file system"):
        await broker.publish([message("a")])
    await broker.close()


def test_a_file_system_without_write_ahead_logging_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_connect", lambda _: sqlite3.connect(":memory:"))
    with pytest.raises(Unavailable, match="write-ahead"):
        files.connect_writer(path, "full")


async def test_a_step_of_the_wall_clock_moves_no_delay_and_no_lease(path: Path) -> None:
    clock = ManualClock()
    broker = SqliteBroker(path, clock=clock)
    await broker.ensure([], [SOURCE])
    consumer = await broker.consume(SOURCE, lease=60.0)
    await broker.publish([message("later"), message("leased")])
    later, _ = await consumer.fetch(2, 0.0)
    await consumer.settle([(later, Later(10.0))])
    clock.step_wall(-3_600.0)
    assert list(await consumer.fetch(2, 0.0)) == []
    await clock.advance(10.0)
    assert [one.message.id for one in await consumer.fetch(2, 0.0)] == ["later"]
    await clock.advance(50.0)
    assert [one.message.id for one in await consumer.fetch(2, 0.0)] == ["leased"]
    await broker.close()


async def test_a_wall_clock_that_was_set_back_between_two_runs_holds_nothing(path: Path) -> None:
    clock = ManualClock(now=5_000.0)
    broker = SqliteBroker(path, clock=clock)
    await broker.ensure([], [SOURCE])
    consumer = await broker.consume(SOURCE)
    await broker.publish([message("a")])
    await consumer.settle([(one, Later(10.0)) for one in await consumer.fetch(1, 0.0)])
    await broker.close()
    # A restart of the machine: its monotonic clock begins anew, its wall clock is an hour behind.
    clock = ManualClock(now=3.0, wall=clock.wall() - 3_600.0)
    broker = SqliteBroker(path, clock=clock)
    consumer = await broker.consume(SOURCE)
    assert list(await consumer.fetch(1, 0.0)) == []
    await clock.advance(10.0)
    assert [one.message.id for one in await consumer.fetch(1, 0.0)] == ["a"]
    await broker.close()


async def test_numbers_are_not_used_again_after_the_log_was_empty(path: Path) -> None:
    for run in range(3):
        broker = await opened(path)
        consumer = await broker.consume(SOURCE)
        for number in range(TRIM_EVERY):
            await broker.publish([message(f"{run}-{number}")])
            assert await names(consumer) == [f"{run}-{number}"]
        await broker.close()
        with closing(sqlite3.connect(path)) as cx:
            assert cx.execute("select count(*) from log_1").fetchone() == (0,)


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    await (await opened(path)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as cx:
        cx.execute("pragma user_version = 2000")
    before = path.read_bytes()
    broker = broker_at(path)
    with pytest.raises(Misuse, match="newer callcast"):
        await broker.publish([message("a")])
    with pytest.raises(Misuse, match="newer callcast"):
        await broker.consume(SOURCE)
    await broker.close()
    assert path.read_bytes() == before


async def test_a_file_with_additions_of_a_later_minor_version_is_used(path: Path) -> None:
    await (await opened(path)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as cx:
        cx.execute("pragma user_version = 1007")
        cx.execute("create table later_addition(a)")
    broker = await opened(path)
    await broker.publish([message("a")])
    await broker.close()


async def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as cx:
        cx.execute("create table users(name)")
    broker = broker_at(path)
    with pytest.raises(Misuse, match="something else"):
        await broker.ensure([], [SOURCE])
    await broker.close()


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"no database at all, but longer than a header" * 40)
    broker = broker_at(path)
    with pytest.raises(Unavailable, match="not a SQLite database"):
        await broker.ensure([], [SOURCE])
    await broker.close()


async def test_a_backup_has_what_lies_in_the_log_beside_the_file(path: Path) -> None:
    broker = await opened(path)
    await broker.publish([message(f"m{number}") for number in range(10)])
    consumer = await broker.consume(SOURCE)
    await consumer.settle([(one, DONE) for one in await consumer.fetch(3, 0.0)])
    copy = path.with_name("copy.db")
    backup(path, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in path.parent.glob("copy*")) == ["copy.db"]
    await broker.close()
    restored = broker_at(copy)
    assert await names(await restored.consume(SOURCE)) == [f"m{n}" for n in range(3, 10)]
    assert await restored.lag(SOURCE) == Lag()
    await restored.close()


async def test_a_backup_is_made_while_others_write(path: Path) -> None:
    broker = await opened(path)
    copy = path.with_name("copy.db")
    await broker.publish([message(f"m{number}") for number in range(5_000)])
    copying = asyncio.ensure_future(asyncio.to_thread(backup, path, copy))
    during = 0
    while not copying.done():
        await broker.publish([message(f"during{during}")])
        during += 1
    await copying
    await broker.close()
    restored = broker_at(copy)
    assert 5_000 <= (await restored.lag(SOURCE)).ready <= 5_000 + during
    await restored.close()


async def test_a_backup_overwrites_nothing_and_leaves_nothing_half(
    path: Path, small_disk: Path
) -> None:
    with pytest.raises(Misuse, match="no file"):
        backup(path, path.with_name("copy.db"))
    broker = await opened(path)
    await broker.publish([message("a", body=b"x" * 1_000_000) for _ in range(6)])
    await broker.close()
    with pytest.raises(Misuse, match="exists"):
        backup(path, path)
    with pytest.raises(Unavailable, match="full"):
        backup(path, small_disk / "copy.db")
    assert list(small_disk.iterdir()) == []
