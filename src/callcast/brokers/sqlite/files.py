"""The file on the disk: made with mode 0600, no symbolic links, no network file systems."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from sqlite3 import Connection
from typing import Literal

from callcast.core.errors import Misuse, Unavailable

Synchronous = Literal["full", "normal"]

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "fuse.sshfs", "lustre")
_NEW = (os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
_OPEN_WAIT = 2.0
"""Seconds to wait while another process opens, recovers or leaves the file. A reader meets nothing
else; for the writer, `Writer` waits in its own way afterwards."""


def claim(path: Path) -> None:
    """Make the file if it is missing, for its owner only.

    Raises `Misuse` for a symbolic link or a network file system, `Unavailable` when the folder is
    missing, read-only, not ours or on a full disk.
    """
    kind = network_filesystem(path, _mounts())
    if kind is not None:
        raise Misuse(
            f"{path} is on a network file system ({kind}), where SQLite loses data: use a local"
            " disk, or a broker with a server"
        )
    for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-live"))):
        if name.is_symlink():
            raise Misuse(f"{name} is a symbolic link: name the file itself")
    try:
        # Never opened when it is there: closing a descriptor would drop the locks that another
        # broker in this process holds on the same file.
        os.close(os.open(path, *_NEW))
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Misuse(f"{path} is not a regular file") from None
    except OSError as error:
        raise Unavailable(f"cannot create {path}: {error.strerror}") from error


def connect_writer(path: Path, synchronous: Synchronous) -> Connection:
    """Open the one connection that writes; raises `sqlite3.Error`, or `Unavailable` without WAL."""
    cx = _connect(path)
    try:
        _prepare(cx, path, synchronous)
    except BaseException:
        cx.close()
        raise
    return cx


def _prepare(cx: Connection, path: Path, synchronous: Synchronous) -> None:
    mode = cx.execute("pragma journal_mode = wal").fetchone()[0]
    if mode != "wal":
        raise Unavailable(
            f"{path}: the file system cannot do write-ahead logging (mode {mode!r});"
            " use a local disk"
        )
    cx.execute(f"pragma synchronous = {synchronous}")
    # Deleted rows need no overwriting (some builds do it by default, at a third of the speed).
    cx.execute("pragma secure_delete = off")
    cx.execute("pragma cache_size = -32000")
    # A log that is written over in place is synced in two thirds of the time of one that grows.
    cx.execute("pragma wal_autocheckpoint = 1000")
    cx.execute("pragma journal_size_limit = 67108864")


def connect_reader(path: Path) -> Connection:
    """Open a connection that only reads, and never keeps a snapshot between two queries."""
    cx = _connect(path)
    cx.execute("pragma query_only = on")
    return cx


def network_filesystem(path: Path, mounts: str) -> str | None:
    """The type of the network file system that holds `path`, by the text of ``mountinfo``."""
    folder = path.absolute().parent
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.partition(" ")[0]
    return kind if kind.startswith(_NETWORK) else None


def _connect(path: Path) -> Connection:
    # The thread that opens a connection is the only one to use it; only a close after that
    # thread's end comes from elsewhere.
    return sqlite3.connect(
        path,
        timeout=_OPEN_WAIT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not Linux: SQLite's own checks remain
