"""The edges of one process in bounded memory, and what is new in them since the last look.

One thread notes, another collects. What is noted is only ever appended or counted up, so that no
lock is needed: the collector puts aside what was appended, and remembers how far it had counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

from callcast.core.recorded import OTHER, RecordedEdge, RecordedVerb, Side

EDGES_MAX = 500
"""Edges of one process; those after them are counted together, as ``_OTHER``."""
PENDING_MAX = 50_000
"""Durations of one edge that wait to be collected, the latest: a collector that hangs costs no
memory, though what it did not collect is not counted."""
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

EdgeKey: TypeAlias = tuple[str, str, str, RecordedVerb, Side]


class _Counts(Struct, frozen=True):
    """How far a line had counted."""

    lost: int = 0
    put_off: int = 0
    extra: int = 0
    failed: int = 0
    fanned: int = 0
    traces: int = 0
    outcomes: dict[str, int] = {}


NO_COUNTS = _Counts()


class Line:
    """One edge from one side; the noting thread counts up, the collector only reads."""

    __slots__ = (
        "_aside",
        "_counts",
        "_fanned",
        "coarse",
        "extra_attempts",
        "failed_attempts",
        "fan_max",
        "fanned_calls",
        "fanned_traces",
        "fine",
        "is_caller",
        "key",
        "lost",
        "outcomes",
        "put_off",
        "since",
        "slow",
        "took",
        "waited",
    )

    def __init__(self, key: EdgeKey) -> None:
        self.key: EdgeKey = key
        self.is_caller: bool = key[4] == "caller"
        self.took: deque[float] = deque(maxlen=PENDING_MAX)
        self.waited: deque[float] = deque(maxlen=PENDING_MAX)
        self.outcomes: dict[str, int] = {}
        self.lost: int = 0  # failed for the caller, or went dead
        self.put_off: int = 0  # attempts that were not the last
        self.extra_attempts: int = 0
        self.failed_attempts: int = 0
        self.fanned_calls: int = 0  # of those that were made by a handler
        self.fanned_traces: int = 0  # and in how many traces; all others have a trace each
        self.fan_max: int = 0
        self.slow: float = SLOW
        self._fanned: dict[str, int] = {}
        # Changed by the collector alone: what was put aside, and how far it had been counted at
        # the last two collections.
        self._aside: tuple[deque[float], deque[float]] = (deque(), deque())
        self._counts = (NO_COUNTS, NO_COUNTS)
        self.fine: RecordedEdge = _edge(key)
        self.coarse: RecordedEdge = _edge(key)
        self.since: float = 0.0

    def fail(self, outcome: str) -> None:
        """Count a failure, or a verdict that is not done, by one word."""
        known = self.outcomes
        word = outcome if outcome in known or len(known) < OUTCOMES_MAX else OTHER
        known[word] = known.get(word, 0) + 1

    def fan(self, correlation_id: str) -> None:
        """Count one more of a trace."""
        self.fanned_calls += 1
        fanned = self._fanned
        count = fanned.get(correlation_id, 0) + 1
        if count == 1:
            self.fanned_traces += 1
            if len(fanned) >= TRACES_MAX:
                del fanned[next(iter(fanned))]
        fanned[correlation_id] = count
        self.fan_max = max(self.fan_max, count)

    def collected(self) -> RecordedEdge | None:
        """What was new before the last time; None when nothing was.

        What is put aside now is only read the next time, for the noting thread may be about to
        append to it. A sample and its verdict may fall into two collections, so a difference may
        be negative: only the sums are exact.
        """
        took, waited = self._aside
        before, after = self._counts
        self._aside = (self.took, self.waited)
        self.took, self.waited = deque(maxlen=PENDING_MAX), deque(maxlen=PENDING_MAX)
        self._counts = (after, self._counted())
        if not took and before == after:
            return None
        new = _edge(self.key)
        new.errors = after.lost - before.lost
        new.count = len(took) - (after.put_off - before.put_off)
        new.attempts = len(took) + after.extra - before.extra
        new.attempt_errors = after.failed - before.failed
        for word, count in after.outcomes.items():
            if count != before.outcomes.get(word, 0):
                new.outcomes[word] = count - before.outcomes.get(word, 0)
        if self.is_caller:
            fanned = after.fanned - before.fanned
            new.traces = len(took) - fanned + after.traces - before.traces
            new.calls_per_trace_max = max(1, self.fan_max)
        elif self.key[3] != "call":
            done = len(took) - sum(new.outcomes.values())
            if done:
                new.outcomes["done"] = done
        (new.latency if self.is_caller else new.work).record_all(took)
        new.queue_time.record_all(waited)
        return new

    def _counted(self) -> _Counts:
        return _Counts(
            self.lost,
            self.put_off,
            self.extra_attempts,
            self.failed_attempts,
            self.fanned_calls,
            self.fanned_traces,
            dict(self.outcomes),
        )

    def learn_slow(self) -> None:
        """Find out from the long slot which durations are slow."""
        seen = self.coarse.latency if self.is_caller else self.coarse.work
        if seen.count >= SLOW_LEAST:
            self.slow = seen.quantile(0.99)


class Entry(Struct, frozen=True):
    """What one edge was in one slot of time."""

    start: float
    """Seconds since the epoch, at which the slot began."""
    span: float
    since: float
    until: float
    """Between which times its first and last thing were noted, to a second."""
    edge: RecordedEdge


class Book:
    """All edges of one process."""

    def __init__(self) -> None:
        self._lines: dict[EdgeKey, Line] = {}  # added to by line(), from the noting thread alone
        self._fine_at = self._coarse_at = self._looked = 0.0  # changed by collected() alone

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
                line.since = 0.0
        self._fine_at, self._coarse_at = fine_at, coarse_at
        earliest = min(self._looked or wall, wall - 1.0)  # what is written was put aside before
        self._looked = wall
        for line in lines:
            new = line.collected()
            if new is None:
                continue
            line.since = line.since or max(coarse_at, earliest)
            summed(line.fine, new)
            summed(line.coarse, new)
            line.fine.peak_rate = line.fine.count / FINE
            line.coarse.peak_rate = max(line.coarse.peak_rate, line.fine.peak_rate)
            line.learn_slow()
            yield Entry(fine_at, FINE, max(fine_at, line.since), wall, line.fine)
            yield Entry(coarse_at, COARSE, line.since, wall, line.coarse)


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
