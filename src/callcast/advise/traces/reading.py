"""Spans of a document in any of the formats; what cannot be read is left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from callcast.advise.model import Span
from callcast.advise.traces.formats import spans_of
from callcast.advise.traces.parts import Cut
from callcast.core.errors import Misuse

_NO_TEXT = (
    (b"\x1f\x8b", "it is compressed: unpack it with gunzip first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed: unpack it with zstd -d first"),
    (
        b"\n",
        "it looks like OTLP as protobuf: have it written as JSON (format: json of the collector's"
        " file exporter, or OTEL_EXPORTER_OTLP_PROTOCOL=http/json)",
    ),
)
"""How bytes that are no JSON begin, and what to do with them. No JSON of the three begins with a
line's end and goes on with what is no text."""

UNDERSTOOD = (
    "OTLP as JSON (one document, or one a line as the collector's file exporter writes),"
    " Jaeger's JSON (its API's answer, its page's download), Zipkin's JSON (v2)"
)


_BEGIN, _SPACE = 64, 0x20


class Reading:
    """Iterate over it once: the spans; then `dropped` says what was left out, and why."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        """`name` is what the chunks were read from, for people."""
        self.name: str = name
        self.dropped: Counter[str] = Counter()
        self._began = b""
        self._cut = Cut(self._seen(chunks))

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
            raise Misuse(
                f"{self.name}: no span in it that can be read{self._why()}; understood are"
                f" {UNDERSTOOD}"
            )

    def _seen(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._began = (self._began + chunk)[:_BEGIN]
            yield chunk

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def _why(self) -> str:
        is_text = not any(byte < _SPACE and byte not in b"\t\r\n" for byte in self._began)
        for begin, advice in _NO_TEXT:
            if self._began.startswith(begin) and not is_text:
                return f"; {advice}"
        said = ", ".join(f"{count} x {reason}" for reason, count in self.dropped.most_common(3))
        return f" ({said})" if said else ""
