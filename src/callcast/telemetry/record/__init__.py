"""The local record: what this process saw of its edges, kept in a SQLite file.

`top`, `trace` and the adviser read it when there is no collector.
"""

from __future__ import annotations

from callcast.ports.clock import Clock
from callcast.ports.observer import Observer
from callcast.telemetry.record.book import Book
from callcast.telemetry.record.file import RecordFile
from callcast.telemetry.record.keeper import Keeper
from callcast.telemetry.record.observer import RecordingObserver
from callcast.telemetry.record.ring import Ring


def recording(  # noqa: PLR0913 - keyword-only, from one place
    inner: Observer,
    clock: Clock,
    *,
    service: str,
    system: str,
    path: str,
    process: str,
    keeps_all: bool = False,
) -> RecordingObserver:
    """An observer that keeps a record in the file at `path`, around `inner`.

    `process` tells the writers of one file apart; it must not be used twice.
    """
    book, ring = Book(), Ring(keeps_all=keeps_all)
    keeper = Keeper(RecordFile(path), process, book=book, ring=ring)
    return RecordingObserver(inner, clock, service=service, system=system, keeper=keeper)
