"""Trace and Measure: spans and durations around all four kinds of work; Silent observes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TypeVar

from callcast.core.message import NO_HEADERS
from callcast.core.work import Next, Work
from callcast.ports.clock import Clock
from callcast.ports.observer import Fact, Observer, WorkSpan

R = TypeVar("R")


class Trace:
    """A span around the work. Costs one question while nobody records."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Begin the span, do the work, end the span with its error."""
        if not self._observer.is_tracing:
            return proceed(work)
        return self._traced(work, proceed)

    async def _traced(self, work: Work, proceed: Next[R]) -> R:
        span = self._observer.begin(work)
        try:
            result = await proceed(work)
        except BaseException as error:
            span.end(error)
            raise
        span.end(outcome=result)
        return result


class Measure:
    """How long the work took and how it ended, in the metric of its kind; while anybody records."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._measure = observer.measure
        self._now = clock.now

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work and tell its duration in seconds."""
        if not self._observer.is_tracing:
            return proceed(work)
        return self._measured(work, proceed)

    async def _measured(self, work: Work, proceed: Next[R]) -> R:
        start = self._now()
        try:
            result = await proceed(work)
        except BaseException as error:
            self._measure(work, self._now() - start, error)
            raise
        self._measure(work, self._now() - start, None)
        return result


class Silent(Observer):
    """Observes nothing; the observer of a program that has set up none."""

    @property
    def is_tracing(self) -> bool:
        """Nobody records."""
        return False

    @property
    def hears_success(self) -> bool:
        """Nobody listens."""
        return False

    def begin(self, work: Work) -> WorkSpan:
        """Return a span that is none."""
        del work
        return SilentSpan()

    def attempt(self, work: Work, url: str) -> WorkSpan:
        """Return a span that is none."""
        del work, url
        return SilentSpan()

    def carrier(self, work: Work) -> Mapping[str, str]:
        """Return nothing to send along."""
        del work
        return NO_HEADERS

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        """Drop it."""

    def tell(self, fact: Fact) -> None:
        """Drop it."""


class SilentSpan:
    """A span that is none."""

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        """Drop it."""
