"""Which spans are kept, until the next time they are written down."""

from __future__ import annotations

from collections import deque
from math import inf

from callcast.core.recorded import RecordedSpan

RING_MAX = 2_000
"""Spans that wait to be written; what comes then is counted and dropped."""
TRACES_A_SECOND = 10
"""New traces whose spans are kept, ordinary ones too."""
SLOW_A_SECOND = 50
"""Slow spans of other traces: under a growing load all of them would be slower than before."""
FOLLOWED_MAX = 500
"""Traces that are kept whole, as far as this process sees them; the newest."""


class Ring:
    """Asked by the thread that works, emptied by the one that writes."""

    def __init__(self, *, keeps_all: bool = False) -> None:
        self._keeps_all = keeps_all
        self._spans: deque[RecordedSpan] = deque()
        self.followed: dict[str, None] = {}
        """Correlation ids; changed by `wants` alone, looked at before it is asked."""
        # Counted down by wants(), set anew by taken(): at worst one more is kept.
        self.traces_left: float = inf if keeps_all else TRACES_A_SECOND
        """How many new traces will be followed; looked at before `wants` is asked at all."""
        self._slow_left = SLOW_A_SECOND
        self.dropped: int = 0

    def wants(self, correlation_id: str, *, failed: bool, slow: bool) -> bool:
        """Whether to make and keep a span of this; all errors, as far as there is room."""
        if not (failed or self._keeps_all or self._follows(correlation_id)):
            if not slow or self._slow_left <= 0:
                return False
            self._slow_left -= 1
        if len(self._spans) < RING_MAX:
            return True
        self.dropped += 1
        return False

    def keep(self, span: RecordedSpan) -> None:
        """Keep a span that was wanted."""
        self._spans.append(span)

    def taken(self) -> list[RecordedSpan]:
        """All that is kept, once a second or so; there is room again."""
        if not self._keeps_all:
            self.traces_left = TRACES_A_SECOND
        self._slow_left = SLOW_A_SECOND
        return [self._spans.popleft() for _ in range(len(self._spans))]

    def put_back(self, spans: list[RecordedSpan]) -> None:
        """Those could not be written: they wait, as far as there is room."""
        room = max(0, RING_MAX - len(self._spans))
        self.dropped += max(0, len(spans) - room)
        self._spans.extendleft(reversed(spans[:room]))

    def _follows(self, correlation_id: str) -> bool:
        followed = self.followed
        if correlation_id in followed:
            return True
        if self.traces_left <= 0:
            return False
        self.traces_left -= 1
        if len(followed) >= FOLLOWED_MAX:
            del followed[next(iter(followed))]
        followed[correlation_id] = None
        return True
