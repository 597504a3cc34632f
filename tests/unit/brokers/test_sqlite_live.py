"""Who is alive, who hears, and what time it is."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from callcast.brokers.sqlite import dbclock, live
from callcast.brokers.sqlite.dbclock import DatabaseClock
from callcast.brokers.sqlite.live import Live
from callcast.core.errors import Misuse, Unavailable
from callcast.testing.clock import ManualClock

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
