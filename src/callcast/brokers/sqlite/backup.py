"""Copying a broker's file while it is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from callcast.brokers.sqlite.files import connect_reader
from callcast.core.errors import Misuse, Unavailable


def backup(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a broker's file, what lies in its write-ahead log included, while others use it.

    The copy is one moment's state; it appears under its name when it is whole and on the disk,
    with mode 0600. What was leased at that moment is free again in the copy, counted as a crash.
    Raises `Misuse` when there is no such file or folder or the target exists, `Unavailable` when
    the copy cannot be written.
    """
    source, copy = Path(path), Path(target)
    if not source.is_file():
        raise Misuse(f"there is no file {source} to copy")
    if copy.exists() or copy.is_symlink():
        raise Misuse(f"{copy} exists: name a file that does not")
    if not copy.parent.is_dir():
        raise Misuse(f"there is no folder {copy.parent} for {copy.name}: make it first")
    part = copy.with_name(f"{copy.name}.part-{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            _copy(source, part)
            os.fsync(descriptor)
            part.rename(copy)
        finally:
            os.close(descriptor)
            part.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"cannot copy {source} to {copy}: {error}") from error


def _copy(source: Path, part: Path) -> None:
    with closing(connect_reader(source)) as reader, closing(sqlite3.connect(part)) as writer:
        # What is half is thrown away: it needs no journal of its own.
        writer.execute("pragma journal_mode = off")
        # In one step: a copy in several starts anew at each commit of another process, and a
        # reader of a write-ahead log stops no writer.
        reader.backup(writer)
        # One file without a log beside it; the broker that opens it turns the log on again.
        writer.execute("pragma journal_mode = delete")
