"""The edges of one process in bounded memory, and what is new in them since the last look.

One thread notes, another collects. What is noted is only ever appended or counted up, so that no
lock is needed: the collector takes the front of a list away, and remembers how far it had counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from callcast.core.recorded import OTHER, RecordedEdge, RecordedVerb, Side

EDGES_MAX = 500
"""Edges of one process; those after them are counted together, as ``_OTHER``."""
PENDING_MAX = 50_000
"""Durations of one edge that wait to be collected; further ones replace the oldest of them, so
that a collector that hangs costs no memory (their number is lost then, too)."""
TRACES_MAX = 1_000
"""Traces of one edge whose calls are being counted."""
OUTCOMES_MAX = 50
SLOW_LEAST = 100
"""Durations from which on a 99th percentile says what is slow."""
SLOW = 1.0
"""Seconds; slow is what takes longer while there is no percentile yet."""
FINE = 10.0
"""Seconds of a short slot, for the live page."""
COARSE = 3_600.0
"""Seconds of a long slot, for the adviser."""

EdgeKey = tuple[str, str, str, RecordedVerb, Side]


class Line:
    """One edge from one side; the noting thread counts up, the collector only reads."""

    __slots__ = (
        "_counted",
        "_fanned",
        "coarse",
        "extra_attempts",
        "failed_attempts",
        "fan_max",
        "fine",
        "key",
        "lost",
        "outcomes",
        "put_off",
        "slow",
        "took",
        "traces",
        "waited",
    )

    def __init__(self, key: EdgeKey) -> None:
        self.key = key
        self.took: deque[float] = deque(maxlen=PENDING_MAX)
        self.waited: deque[float] = deque(maxlen=PENDING_MAX)
        self.outcomes: dict[str, int] = {}
        self.lost = 0  # failed for the caller, or went dead
        self.put_off = 0  # attempts that were not the last
        self.extra_attempts = 0
        self.failed_attempts = 0
        self.traces = 0
        self.fan_max = 0
        self.slow = SLOW
        self._fanned: dict[str, int] = {}
        # Changed by the collector alone.
        self._counted = (0, 0, 0, 0, 0, {})
        self.fine = _edge(key)
        self.coarse = _edge(key)

    def fail(self, outcome: str) -> None:
        """Count a failure, or a verdict that is not done, by one word."""
        known = self.outcomes
        word = outcome if outcome in known or len(known) < OUTCOMES_MAX else OTHER
        known[word] = known.get(word, 0) + 1

    def fan(self, correlation_id: str) -> None:
        """Count one more of a trace."""
        fanned = self._fanned
        count = fanned.get(correlation_id, 0) + 1
        if count == 1:
            self.traces += 1
            if len(fanned) >= TRACES_MAX:
                del fanned[next(iter(fanned))]
        fanned[correlation_id] = count
        if count > self.fan_max:
            self.fan_max = count

    def collected(self) -> RecordedEdge | None:
        """What is new; None when nothing is."""
        took = _taken(self.took)
        waited = _taken(self.waited)
        outcomes = dict(self.outcomes)
        before, self._counted = (
            self._counted,
            (
                self.lost,
                self.put_off,
                self.extra_attempts,
                self.failed_attempts,
                self.traces,
                outcomes,
            ),
        )
        if not took and self._counted == before:
            return None
        new = _edge(self.key)
        lost, put_off, extra, failed, traces, known = before
        new.errors = self._counted[0] - lost
        new.count = max(0, len(took) - (self._counted[1] - put_off))
        new.attempts = len(took) + self._counted[2] - extra
        new.attempt_errors = self._counted[3] - failed
        new.traces = self._counted[4] - traces
        new.calls_per_trace_max = self.fan_max
        new.outcomes = {
            word: count - known.get(word, 0)
            for word, count in outcomes.items()
            if count != known.get(word, 0)
        }
        done = len(took) - sum(new.outcomes.values())
        if self.key[4] == "callee" and self.key[3] != "call" and done > 0:
            new.outcomes["done"] = done
        (new.latency if self.key[4] == "caller" else new.work).record_all(took)
        new.queue_time.record_all(waited)
        return new

    def learn_slow(self) -> None:
        """Find out from the long slot which durations are slow."""
        seen = self.coarse.latency if self.key[4] == "caller" else self.coarse.work
        if seen.count >= SLOW_LEAST:
            self.slow = seen.quantile(0.99)


class Entry(Struct, frozen=True):
    """What one edge was in one slot of time."""

    start: float
    """Seconds since the epoch."""
    span: float
    edge: RecordedEdge


class Book:
    """All edges of one process."""

    def __init__(self) -> None:
        self._lines: dict[EdgeKey, Line] = {}  # added to by line(), from the noting thread alone
        self._fine_at = self._coarse_at = 0.0  # changed by collected() alone

    def line(self, key: EdgeKey) -> Line:
        """The edge of this key; beyond the bound, the one that stands for all others."""
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= EDGES_MAX:
                key = (OTHER, OTHER, OTHER, key[3], key[4])
                line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = Line(key)
        return line

    def collected(self, wall: float) -> Iterator[Entry]:
        """Both slots of each edge that has something new, at this time of the wall clock."""
        fine_at, coarse_at = wall - wall % FINE, wall - wall % COARSE
        lines = list(self._lines.values())
        for line in lines:
            if fine_at != self._fine_at:
                line.fine = _edge(line.key)
            if coarse_at != self._coarse_at:
                line.coarse = _edge(line.key)
        self._fine_at, self._coarse_at = fine_at, coarse_at
        for line in lines:
            new = line.collected()
            if new is None:
                continue
            for slot in (line.fine, line.coarse):
                summed(slot, new)
                slot.window = wall
            line.fine.peak_rate = line.fine.count / FINE
            line.coarse.peak_rate = max(line.coarse.peak_rate, line.fine.peak_rate)
            line.learn_slow()
            yield Entry(fine_at, FINE, line.fine)
            yield Entry(coarse_at, COARSE, line.coarse)


def summed(edge: RecordedEdge, other: RecordedEdge) -> None:
    """Add what the other one counted; peaks and windows are not added up."""
    edge.count += other.count
    edge.errors += other.errors
    edge.attempts += other.attempts
    edge.attempt_errors += other.attempt_errors
    edge.traces += other.traces
    edge.calls_per_trace_max = max(edge.calls_per_trace_max, other.calls_per_trace_max)
    for word, count in other.outcomes.items():
        edge.outcomes[word] = edge.outcomes.get(word, 0) + count
    edge.latency.add(other.latency)
    edge.work.add(other.work)
    edge.queue_time.add(other.queue_time)


def _edge(key: EdgeKey) -> RecordedEdge:
    caller, callee, name, verb, side = key
    return RecordedEdge(caller=caller, callee=callee, name=name, verb=verb, side=side)


def _taken(samples: deque[float]) -> list[float]:
    """Take away what is there now; what is appended meanwhile stays."""
    return [samples.popleft() for _ in range(len(samples))]
