"""A file system without room for SQLite's shared memory is a full disk, and is said to be one."""

from __future__ import annotations

import sqlite3

from callcast.brokers.sqlite.writer import translated as of_the_broker
from callcast.core.errors import Unavailable
from callcast.sessions.sqlite_driver import translated as of_a_session


def no_room() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    error.sqlite_errorname = "SQLITE_IOERR_SHMSIZE"
    return error


def test_a_session_says_that_the_disk_is_full() -> None:
    error = of_a_session(no_room(), "orders.db")
    assert isinstance(error, Unavailable)
    assert "orders.db: the disk is full" in str(error)


def test_the_broker_says_that_the_disk_is_full() -> None:
    assert "the disk is full" in str(of_the_broker(no_room()))
