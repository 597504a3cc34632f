"""Writes the record down, now and then, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from callcast.ports.clock import Clock
from callcast.telemetry.record.book import Book, Entry
from callcast.telemetry.record.file import BROKEN, RecordFile
from callcast.telemetry.record.ring import Ring

EVERY = 1.0
"""Seconds between two writes: what a killed process loses at most."""
TIDY_EVERY = 60
"""Writes between two deletions of what is old."""
STOP_WAIT = 5.0
"""Seconds that a program waits for the last write."""
UNWRITTEN_MAX = 2_000
"""Slots that wait for a file that cannot be written."""
_LOOK = 0.005

_log = logging.getLogger("callcast")


class Keeper:
    """One file, one thread; a file that cannot be written is told once, and tried again."""

    def __init__(self, file: RecordFile, process: str, *, book: Book, ring: Ring) -> None:
        self._file = file
        self._process = process
        self.book: Book = book
        self.ring: Ring = ring
        self._writes = 0
        self.failures: int = 0
        """Writes that failed."""
        self._unwritten: dict[tuple[float, float, int], Entry] = {}  # the latest of each slot
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, wall: Callable[[], float]) -> None:
        """Begin to write. Idempotent."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(
                target=self._run, args=(wall,), name="callcast record", daemon=True
            )
            self._thread.start()

    async def stop(self, clock: Clock) -> None:
        """Write what is left and end the thread, within `STOP_WAIT`. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        until = clock.now() + STOP_WAIT
        while thread.is_alive() and clock.now() < until:
            await clock.sleep(_LOOK)

    def write(self, wall: float) -> None:
        """Write once what is new; never raises for the file's sake."""
        for entry in self.book.collected(wall):
            self._unwritten[(entry.start, entry.span, id(entry.edge))] = entry
        spans = self.ring.taken()
        if not self._unwritten and not spans:
            return
        try:
            self._file.write(self._process, self._unwritten.values(), spans)
            self._unwritten.clear()
            spans = []
            self._writes += 1
            if self._writes % TIDY_EVERY == 1:
                self._file.tidy(wall)
        except BROKEN as error:
            self.ring.put_back(spans)
            self._fail(error)

    def finish(self, wall: float) -> None:
        """Write all that was noted until now, and close the file."""
        self.write(wall)  # which puts aside what the next one writes
        self.write(wall)
        self._file.close()

    def _run(self, wall: Callable[[], float]) -> None:
        while not self._stopping.wait(EVERY):
            self.write(wall())
        self.finish(wall())

    def _fail(self, error: Exception) -> None:
        self._file.close()
        # Slots that nobody will read any more need not wait for a file that may never come.
        while len(self._unwritten) > UNWRITTEN_MAX:
            del self._unwritten[next(iter(self._unwritten))]
        self.failures += 1
        if self.failures == 1:
            _log.warning(
                "the record %s cannot be written (%s): the program goes on without it, and tries"
                " again every %.0f s; CALLCAST_RECORD=off keeps none, CALLCAST_RECORD=PATH another",
                self._file.path,
                error,
                EVERY,
            )
