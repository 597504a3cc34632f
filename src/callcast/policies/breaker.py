"""The circuit breaker: a state machine that is told the time, and its layer.

| state        | admits                    | a result                     | leaves              |
|--------------|---------------------------|------------------------------|---------------------|
| closed       | all                       | counts in the window         | open: at a limit    |
| open         | none until its wait ended | ignored                      | half_open: the next |
| half_open    | `permitted` trials in all | counts; the last one decides | closed or open      |
| forced_open  | none                      | ignored                      | by the operator     |
| disabled     | all                       | ignored                      | by the operator     |
| metrics_only | all                       | counts in the window         | by the operator     |

A cancelled trial gives its permit back. When half_open has lasted `half_open_max`, the next call
makes it decide on what it has, trials that have not returned counting as failed; when it has
nothing at all, that call is a new trial.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import TypeVar

from msgspec import Struct

from callcast.core.errors import CircuitOpen
from callcast.core.work import Next, Work
from callcast.policies.classify import IGNORED, OK, Verdict, verdict_of
from callcast.policies.options import CircuitBreaker
from callcast.policies.telling import tell_of
from callcast.policies.window import CountWindow, TimeWindow, Window
from callcast.ports.clock import Clock
from callcast.ports.observer import CircuitChanged, Observer, Rejected

R = TypeVar("R")

CONSECUTIVE = 5
"""Failures in a row that open a circuit about which too little is known for a rate."""
GROWTH = 2.0
CHANGES_MAX = 100
"""Changes kept for whoever tells them; a breaker changes at most once in a call."""
_ROUNDING = 1e-9
"""7 % of 100 calls is 7.000000000000001 in floats, and 7 failures are 7 %."""


class Circuit(enum.StrEnum):
    """The states of a breaker, by the words of telemetry."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


class Change(Struct, frozen=True):
    """From one state to another, and why."""

    before: Circuit
    after: Circuit
    reason: str


_FREE = frozenset({Circuit.CLOSED, Circuit.DISABLED, Circuit.METRICS_ONLY})


class Phase:
    """One stretch between two changes, and the token of every admission in it.

    A result is counted only in the phase that admitted it. Changed under the breaker's lock.
    """

    __slots__ = ("calls", "failures", "is_free", "permits", "slows", "state", "until")

    def __init__(self, state: Circuit, until: float = inf, permits: int = 0) -> None:
        self.state: Circuit = state
        self.is_free: bool = state in _FREE
        self.until: float = until
        self.permits: int = permits
        self.calls: int = 0
        self.failures: int = 0
        self.slows: int = 0


class Breaker:
    """One circuit. See the table of this module; limits are those of `CircuitBreaker`.

    Thread-safe with a `lock` that is, also without the GIL; it is held for bookkeeping only.
    Whoever uses it takes the `changes` and tells them.
    """

    def __init__(self, options: CircuitBreaker, *, lock: AbstractContextManager[object]) -> None:
        self._options = options
        self._lock = lock
        self._minimum = options.minimum
        self._phase = Phase(Circuit.CLOSED)  # replaced under the lock, read without it
        self._window: Window = (
            CountWindow(options.window)
            if options.window_time is None
            else TimeWindow(options.window_time)
        )
        self._failures_running = 0
        self._wait = options.wait  # doubled by each failed trial, until the circuit closes
        self.changes: deque[Change] = deque(maxlen=CHANGES_MAX)

    @property
    def state(self) -> Circuit:
        """Where it is; an open one whose wait has ended says so until somebody asks to pass."""
        return self._phase.state

    def retry_in(self, now: float) -> float:
        """Seconds until the next trial; 0 when a call may pass now."""
        phase = self._phase
        if phase.is_free or phase.permits:
            return 0.0
        if phase.state is Circuit.FORCED_OPEN:
            return self._options.wait
        return max(0.0, phase.until - now)

    def admit(self, now: float) -> Phase | None:
        """The token to give back with the result, or None: do not call."""
        phase = self._phase
        if phase.is_free:
            return phase
        with self._lock:
            return self._admit(now)

    def record(self, token: Phase, now: float, *, failed: bool, slow: bool) -> None:
        """Count the result of an admitted call.

        A full window of quick successes is the same after one more: that needs no lock, and is
        what nearly every call finds. Beside a failure it counts as having ended before it.
        """
        if self._window.is_clean and not failed and not slow:
            return
        with self._lock:
            if token is not self._phase or token.state is Circuit.DISABLED:
                return
            if token.state is Circuit.HALF_OPEN:
                self._judge(token, now, failed=failed, slow=slow)
                return
            window = self._window
            window.add(now, failed=failed, slow=slow)
            self._failures_running = self._failures_running + 1 if failed else 0
            if window.failures or window.slows:
                self._weigh(token, now)

    def forget(self, token: Phase) -> None:
        """The call ended without a verdict: it counts nowhere and its permit goes back."""
        with self._lock:
            if token is self._phase and token.state is Circuit.HALF_OPEN:
                token.permits += 1

    def take_changes(self) -> Sequence[Change]:
        """What has changed since it was last asked; each change is handed to one caller."""
        if not self.changes:
            return ()
        with self._lock:
            taken = tuple(self.changes)
            self.changes.clear()
            return taken

    def force_open(self) -> None:
        """Operator: admit nothing until `reset`."""
        self._order(Circuit.FORCED_OPEN)

    def disable(self) -> None:
        """Operator: admit all and count nothing until `reset`."""
        self._order(Circuit.DISABLED)

    def only_measure(self) -> None:
        """Operator: admit all and count, but never open, until `reset`."""
        self._order(Circuit.METRICS_ONLY)

    def reset(self) -> None:
        """Operator: closed, with an empty window."""
        self._order(Circuit.CLOSED)

    def _admit(self, now: float) -> Phase | None:
        phase = self._phase
        if now > phase.until:
            if phase.state is Circuit.OPEN:
                phase = self._try(now, "its wait is over")
            else:
                phase = self._overdue(phase, now)
        if phase.is_free:
            return phase
        if phase.permits < 1:
            return None
        phase.permits -= 1
        return phase

    def _overdue(self, phase: Phase, now: float) -> Phase:
        """Decide a half-open phase that has lasted too long."""
        missing = self._options.permitted - phase.permits - phase.calls
        if phase.calls + missing == 0:
            return self._try(now, "all its trials were cancelled")
        phase.failures += missing
        phase.calls += missing
        return self._decide(phase, now)

    def _judge(self, phase: Phase, now: float, *, failed: bool, slow: bool) -> None:
        phase.calls += 1
        phase.failures += failed
        phase.slows += slow
        if phase.calls >= self._options.permitted:
            self._decide(phase, now)

    def _decide(self, phase: Phase, now: float) -> Phase:
        options = self._options
        why = _reason(phase, options)
        if why is None:
            passed = phase.calls - phase.failures
            self._wait = options.wait
            return self._enter(Phase(Circuit.CLOSED), f"{passed} of {phase.calls} trials passed")
        self._wait = min(options.wait_max, self._wait * GROWTH)
        return self._open(now, f"in the trial {why}")

    def _weigh(self, phase: Phase, now: float) -> None:
        if phase.state is not Circuit.CLOSED:
            return
        window, options, running = self._window, self._options, self._failures_running
        is_known = window.calls >= self._minimum
        why = None
        if is_known:
            why = _reason(window, options)
        limit = options.consecutive or (inf if is_known else CONSECUTIVE)
        if why is None and running >= limit:
            why = f"{running} calls failed in a row"
        if why is not None:
            self._open(now, why)

    def _open(self, now: float, why: str) -> Phase:
        return self._enter(Phase(Circuit.OPEN, until=now + self._wait), why)

    def _try(self, now: float, why: str) -> Phase:
        lasts = self._options.half_open_max or self._wait
        phase = Phase(Circuit.HALF_OPEN, until=now + lasts, permits=self._options.permitted)
        return self._enter(phase, why)

    def _order(self, state: Circuit) -> None:
        with self._lock:
            self._wait = self._options.wait
            self._enter(Phase(state), "by the operator")

    def _enter(self, phase: Phase, why: str) -> Phase:
        if phase.state is not Circuit.HALF_OPEN or self._phase.state is not Circuit.HALF_OPEN:
            self.changes.append(Change(self._phase.state, phase.state, why))
        self._phase = phase
        self._window.clear()
        self._failures_running = 0
        return phase


def _reason(seen: Phase | Window, options: CircuitBreaker) -> str | None:
    """Why these results are too bad, or None."""
    if seen.failures >= seen.calls * options.rate - _ROUNDING:
        return f"{seen.failures} of {seen.calls} calls failed"
    if seen.slows >= seen.calls * options.slow_rate - _ROUNDING:
        return f"{seen.slows} of {seen.calls} calls were slow"
    return None


class BreakerLayer:
    """CALL: asks the breaker, and tells it how the attempt ended. Raises `CircuitOpen`.

    `slow_call` in seconds: strictly longer is slow; None is never.
    """

    def __init__(
        self, breaker: Breaker, *, clock: Clock, observer: Observer, slow_call: float | None = None
    ) -> None:
        self._breaker = breaker
        self._slow_call = inf if slow_call is None else slow_call
        self._now = clock.now
        self._observer = observer

    def __repr__(self) -> str:
        return f"CircuitBreaker({self._breaker.state})"

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Make the attempt, unless the circuit is open."""
        breaker = self._breaker
        start = self._now()
        token = breaker.admit(start)
        if token is None:
            raise self._rejected(work, start)
        try:
            result = await proceed(work)
        except BaseException as error:
            self._failed(token, start, verdict_of(error))
            self._tell(work)
            raise
        now = self._now()
        breaker.record(token, now, failed=False, slow=now - start > self._slow_call)
        if breaker.changes:
            self._tell(work)
        return result

    def _failed(self, token: Phase, start: float, verdict: Verdict) -> None:
        breaker = self._breaker
        if verdict is IGNORED:
            breaker.forget(token)
        else:
            now = self._now()
            failed = verdict is not OK
            breaker.record(token, now, failed=failed, slow=now - start > self._slow_call)

    def _rejected(self, work: Work, now: float) -> CircuitOpen:
        self._tell(work)
        tell_of(self._observer, work, Rejected(work.name, work.peer, "circuit"))
        left = self._breaker.retry_in(now)
        return CircuitOpen(
            f"{work.name!r}: the circuit of {work.peer or work.name} is"
            f" {self._breaker.state}, so it was not asked; the next trial is in {left:.3f} s",
            retry_after=left,
        )

    def _tell(self, work: Work) -> None:
        for change in self._breaker.take_changes():
            peer = work.peer or work.name
            changed = CircuitChanged(peer, change.before, change.after, change.reason)
            tell_of(self._observer, work, changed)
