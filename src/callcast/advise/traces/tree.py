"""One trace as a tree: who is below whom, which span handles, which of them are one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from callcast.advise.model import Span
from callcast.advise.traces import words

SKEW = 0.001
"""Seconds that clocks of one machine may differ without being told."""


class Called(Struct, frozen=True):
    """One call, with its attempts in their order."""

    attempts: tuple[Span, ...]
    served: Span | None
    """The callee's span of the last attempt, where it was seen."""
    callee: str
    name: str

    @property
    def start(self) -> float:
        """When its first attempt began."""
        return self.attempts[0].start

    @property
    def end(self) -> float:
        """When its last attempt ended."""
        return ended(self.attempts[-1])


class Tree:
    """The spans of one trace. What is wrong with them is mended and counted in `dropped`."""

    def __init__(self, spans: Sequence[Span], dropped: Counter[str]) -> None:
        self.spans: dict[str, Span] = {span.span_id: span for span in spans}
        self._below: dict[str, list[Span]] = {}
        self._dropped = dropped
        self._parents: dict[str, Span] = {}
        self._open_rings(spans)
        for span in spans:
            self._place(span)
        for below in self._below.values():
            below.sort(key=lambda span: span.start)

    def below(self, span: Span) -> Sequence[Span]:
        """Its children, by their beginning."""
        return self._below.get(span.span_id, ())

    def parent(self, span: Span) -> Span | None:
        """The span above it; None for a root, and where it is not in the input."""
        return self._parents.get(span.span_id)

    def calls(self, handler: Span) -> Sequence[Called]:
        """The calls that this span's handling makes itself, attempts of one put together."""
        found: list[Called] = []
        places: dict[tuple[str, str], int] = {}
        for span in sorted(self._within(handler), key=lambda one: one.start):
            if not words.is_call(span) or self._is_attempt_of_whole(span):
                continue
            called = self._called(span)
            at = places.get((called.callee, called.name))
            if at is not None and _is_retry(found[at].attempts[-1], span):
                attempts = (*found[at].attempts, *called.attempts)
                found[at] = replace(called, attempts=attempts)
            else:
                places[called.callee, called.name] = len(found)
                found.append(called)
        return found

    def publishes(self, handler: Span) -> Sequence[Span]:
        """The messages that this span's handling sends; of one that is created first, the first."""
        return [
            span
            for span in self._within(handler)
            if words.is_publishing(span) and self._created(span) is None
        ]

    def leaves(self, published: Span) -> Sequence[Span]:
        """The later spans of the same message: it left an outbox."""
        return [span for span in self.below(published) if self._created(span) is published]

    def _created(self, span: Span) -> Span | None:
        above = self.parent(span)
        if above is None or not (words.is_publishing(above) and words.is_publishing(span)):
            return None
        return above if words.destination(above) == words.destination(span) else None

    def _within(self, handler: Span) -> Iterator[Span]:
        """All below a handler, but not what others handle."""
        if not is_handler(handler) and (words.is_call(handler) or words.is_publishing(handler)):
            yield handler  # a root that does nothing but this
        todo = list(self.below(handler))
        while todo:
            span = todo.pop()
            if not is_handler(span):
                yield span
                todo.extend(self.below(span))

    def _is_attempt_of_whole(self, span: Span) -> bool:
        above = self.parent(span)
        return above is not None and words.is_whole_call(above)

    def _called(self, span: Span) -> Called:
        inner = [one for one in self.below(span) if words.is_call(one)]
        if words.is_whole_call(span) and inner:
            last = self._called(inner[-1])
            name = words.operation(span)
            *before, final = (*inner[:-1], *last.attempts)
            if span.is_error:  # it ran into its deadline: an attempt that was cancelled is no error
                final = replace(final, is_error=True)
            return Called((*before, final), last.served, last.callee, name)
        served = next((one for one in self.below(span) if one.kind == "server"), None)
        if served is not None:
            return Called((span,), served, served.service, words.operation(served))
        return Called((span,), None, words.peer(span) or "unknown", words.operation(span))

    def _open_rings(self, spans: Sequence[Span]) -> None:
        """The first span of each ring of parents becomes a root; every span is walked over once."""
        self._ring_opened: set[str] = set()
        is_sound: set[str] = set()
        for span in spans:
            path: dict[str, Span] = {}
            at: Span | None = span
            while at is not None and at.span_id not in is_sound and at.span_id not in path:
                path[at.span_id] = at
                at = self.spans.get(at.parent_id)
            if at is not None and at.span_id in path:
                ring = list(path.values())[list(path).index(at.span_id) :]
                self._ring_opened.add(min(ring, key=lambda one: one.start).span_id)
                self._dropped["a span above itself: it counts as a root"] += 1
            is_sound.update(path)

    def _place(self, span: Span) -> None:
        if not span.parent_id:
            return
        parent = self.spans.get(span.parent_id)
        if parent is None:
            self._dropped["a parent that is missing: its child counts as a root"] += 1
        elif span.span_id not in self._ring_opened:
            if span.start < parent.start - SKEW:
                self._dropped["a clock that is behind: times between services are less sure"] += 1
            self._parents[span.span_id] = parent
            self._below.setdefault(parent.span_id, []).append(span)


def is_handler(span: Span) -> bool:
    """Whether it serves a request or handles a message."""
    return span.kind == "server" or words.is_handling(span)


def ended(span: Span) -> float:
    """When it ended, in seconds since the epoch."""
    return span.start + span.took


def _is_retry(before: Span, span: Span) -> bool:
    if words.number(span, "http.request.resend_count") > 0:
        return True
    return before.is_error and span.start >= ended(before)
