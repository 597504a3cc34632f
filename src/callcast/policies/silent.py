"""An observer that observes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from callcast.core.message import NO_HEADERS
from callcast.core.work import Work
from callcast.ports.observer import Fact, Observer, WorkSpan


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
