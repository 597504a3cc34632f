"""What the `sqlite3` module says, in our words: opening files, and errors."""

from __future__ import annotations

import os
import sqlite3
import stat

from callcast.core.errors import Busy, Misuse, Unavailable

MEMORY = ":memory:"

_AWAY = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)

_WAL_LIMIT_BYTES = 64 * 1024 * 1024  # what is left of the WAL after a checkpoint, at most


def connect(path: str, *, is_reader: bool = False) -> sqlite3.Connection:
    """Open `path` in WAL mode; a new file is readable for its owner only.

    Raises `Misuse` for a symbolic link, `Unavailable` or `Busy` when it cannot be opened now.
    """
    if path != MEMORY:
        _make_private(path)
    connection = None
    try:
        # Switching to WAL waits for other writers, here where nobody can cancel it: not for long.
        connection = sqlite3.connect(
            path, timeout=0.5, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute(f"pragma journal_size_limit = {_WAL_LIMIT_BYTES}")
        # From here on we wait ourselves, where a cancellation can end it.
        connection.execute("pragma busy_timeout = 0")
        if is_reader:
            connection.execute("pragma query_only = on")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise translated(error, path) from error
    return connection


def translated(error: sqlite3.Error, path: str) -> Exception:
    """`Busy` or `Unavailable`; an error of the statement itself stays as it is."""
    code = primary_code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Busy(f"{path}: somebody else holds its lock ({error})")
    if code in _AWAY:
        name = error.sqlite_errorname
        # The index of the log in shared memory could not grow: the file system has no room.
        why = "the disk is full" if name == "SQLITE_IOERR_SHMSIZE" else str(error)
        return Unavailable(f"{path}: {why} ({name})")
    return error


def primary_code(error: sqlite3.Error) -> int:
    """The lower byte of SQLite's extended code; 0 when the module itself raised the error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _make_private(path: str) -> None:
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            raise Misuse(f"{path} is a symbolic link; name the file itself")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    else:
        return
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
