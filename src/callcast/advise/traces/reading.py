"""Spans of a document in any of the formats; what cannot be read is left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from callcast.advise.model import Span
from callcast.advise.traces.formats import spans_of
from callcast.advise.traces.parts import Cut
from callcast.core.errors import Misuse

UNDERSTOOD = (
    "OTLP as JSON (one document, or one a line as the collector's file exporter writes),"
    " Jaeger's JSON (its API's answer, its page's download), Zipkin's JSON (v2)"
)


class Reading:
    """Iterate over it once: the spans; then `dropped` says what was left out, and why."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        """`name` is what the chunks were read from, for people."""
        self.name: str = name
        self.dropped: Counter[str] = Counter()
        self._cut = Cut(chunks)

    def __iter__(self) -> Iterator[Span]:
        """Each span; raises `Misuse` at the end if there was not one that could be read."""
        found = 0
        for part in self._cut:
            for span in spans_of(part, self._drop):
                found += 1
                yield span
        if self._cut.oversized:
            self.dropped["a part larger than 64 MiB"] += self._cut.oversized
        if self._cut.is_cut_off:
            self._drop("the end: the document is cut off")
        if not found:
            raise Misuse(f"{self.name}: no span in it that can be read{self._why()}; {UNDERSTOOD}")

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def _why(self) -> str:
        said = ", ".join(f"{count} x {reason}" for reason, count in self.dropped.most_common(3))
        return f" ({said})" if said else ""
