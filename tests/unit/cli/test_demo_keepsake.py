"""After a demo its record is still there, and the last lines say how to look at it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from callcast.cli.demo.keepsake import kept, ways_to_look


def a_record(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("create table spans(id)")
    connection.close()
    return path


def test_the_record_replaces_that_of_the_last_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        path = Path(kept(a_record(tmp_path / "demo.record")))
        (tmp_path / "demo.record").unlink()
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_where_nothing_can_be_kept_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where a folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kept(a_record(tmp_path / "demo.record")) == ""
    assert ways_to_look("", "o-1") == ()


def test_the_ways_to_look_name_the_order() -> None:
    assert any("callcast trace o-1 --record r" in line for line in ways_to_look("r", "o-1"))
