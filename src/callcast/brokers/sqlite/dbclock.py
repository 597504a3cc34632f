"""The database's clock: the same for all processes of one machine, and it never steps back.

It is the machine's monotonic clock plus an offset that is stored in the file, so that a step of
the wall clock neither holds a delayed message nor makes a lease eternal. It is set to the wall
clock anew after a restart of the machine. While the machine is suspended it stands still.
Times in the file are integer microseconds: sums of floats would miss a due time by a rounding.
"""

from __future__ import annotations

import math
from pathlib import Path
from sqlite3 import Connection

from callcast.ports.clock import Clock

SECOND = 1_000_000
"""Microseconds in a second."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class DatabaseClock:
    """Tells the database's time once `anchor` has read its offset."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = 0

    def now(self) -> int:
        """Microseconds on the database's clock."""
        return round(self._clock.now() * SECOND) + self._offset

    def wall(self) -> int:
        """Microseconds since the epoch."""
        return round(self._clock.wall() * SECOND)

    def due(self, when: float) -> int:
        """The database's time for a wall-clock time in seconds."""
        return self.now() + span(when - self._clock.wall())

    def shown(self, due: int) -> float:
        """The wall-clock time in seconds for a time of the database."""
        return self._clock.wall() + (due - self.now()) / SECOND

    def anchor(self, cx: Connection) -> None:
        """Read the offset; set it anew when it is of an earlier boot or would step back.

        Needs an open write transaction.
        """
        boot = boot_id()
        local = round(self._clock.now() * SECOND)
        row = cx.execute("select boot, offset, seen from clock").fetchone()
        if row is not None and row[0] == boot and local + row[1] >= row[2]:
            self._offset = row[1]
            return
        seen = self.wall() if row is None else max(self.wall(), row[2])
        self._offset = seen - local
        cx.execute("insert or replace into clock values (1, ?, ?, ?)", (boot, self._offset, seen))


def see(cx: Connection, now: int) -> None:
    """Note that the clock was seen at `now`: it never starts from an earlier time again."""
    cx.execute("update clock set seen = ? where seen < ?", (now, now))


def span(seconds: float) -> int:
    """A duration in microseconds, rounded up: never early."""
    return math.ceil(round(seconds * SECOND, 3))


def boot_id() -> str:
    """What changes with each start of the machine; empty where it cannot be told."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
