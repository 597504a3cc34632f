"""Trace, Measure and Noted: spans and durations around all four kinds of work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from callcast.core.work import Next, Work
from callcast.ports.clock import Clock
from callcast.ports.observer import Observer, Records

R = TypeVar("R")


class Trace:
    """A span around the work."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Begin the span, do the work, end the span with its error."""
        span = self._observer.begin(work)
        try:
            result = await proceed(work)
        except BaseException as error:
            span.end(error)
            raise
        span.end(outcome=result)
        return result


class Measure:
    """How long the work took and how it ended, in the metric of its kind."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._measure = observer.measure
        self._now = clock.now

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Do the work and tell its duration in seconds."""
        start = self._now()
        try:
            result = await proceed(work)
        except BaseException as error:
            self._measure(work, self._now() - start, error)
            raise
        self._measure(work, self._now() - start, None)
        return result

    def noting(self, records: Records) -> Noted:
        """The layer that stands here while nobody measures: for the record alone."""
        return Noted(records, self._now)


class Noted:
    """How long the work took and how it ended, in the local record."""

    def __init__(self, records: Records, now: Callable[[], float]) -> None:
        self._note = records.note
        self._now = now

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Do the work and tell its duration in seconds."""
        start = self._now()
        try:
            result = await proceed(work)
        except BaseException as error:
            self._note(work, self._now() - start, error)
            raise
        self._note(work, self._now() - start, None)
        return result
