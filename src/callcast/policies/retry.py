"""CALL and PUBLISH: try again; the decision is pure, the layer asks it, waits and repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from callcast.core.errors import Attempt, NotSent, Remote
from callcast.core.work import Next, Work
from callcast.policies.budget import Budget
from callcast.policies.classify import (
    FAILED,
    IGNORED,
    OK,
    OVERLOADED,
    OWN_REJECTIONS,
    verdict_of,
)
from callcast.policies.history import attach_attempts
from callcast.policies.notes import summary
from callcast.policies.options import Retry
from callcast.policies.telling import tell_of
from callcast.policies.time_left import LEAST_LEFT
from callcast.ports.clock import Clock
from callcast.ports.observer import Observer, Retried

R = TypeVar("R")

DOUBLINGS_MAX = 63
"""Beyond it the cap has long been reached, and a float would overflow at 1024."""

RetryOn: TypeAlias = (
    type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] | None
)
"""Errors after which a repeat is harmless: classes, or a question."""


class Decision(Struct, frozen=True):
    """Retry after `delay` seconds, or not at all when it is None; and why."""

    delay: float | None
    why: str
    """retried, exhausted, budget_denied, deadline, circuit_open, forbidden; or rejected and
    not_repeatable, where no retry was in question."""


_SILENT = frozenset({"rejected", "not_repeatable"})


class Judge:
    """Decides about one failed attempt. Pure but for the budget, which it tells of the failure.

    | error                                   | budget  |
    |-----------------------------------------|---------|
    | rejected on our own side, cancelled     | -       |
    | would be repeated                       | fail    |
    | is not repeated: the callee failed      | fail    |
    | is not repeated: it was refused unsent  | -       |
    | is not repeated, but the callee works   | succeed |

    `circuit_wait(now)` says how long the circuit will not admit a call.
    """

    def __init__(
        self,
        options: Retry,
        budget: Budget,
        *,
        dice: Callable[[], float],
        repeats: Callable[[Exception], bool],
        circuit_wait: Callable[[float], float] | None = None,
    ) -> None:
        self.options = options
        self.budget = budget
        self._dice = dice
        self._repeats = repeats
        self._circuit_wait = circuit_wait

    def decide(self, error: Exception, work: Work, now: float) -> Decision:
        """What follows on this error of attempt `work.attempt`."""
        verdict = verdict_of(error)
        if verdict is IGNORED:
            return Decision(None, "rejected")
        repeats = self._repeats(error)
        if repeats or (verdict is FAILED and not _is_refusal(error)):
            self.budget.fail()  # before the question: see `Budget`
        elif verdict is OK:
            self.budget.succeed()
        if not repeats:
            return Decision(None, "not_repeatable")
        if is_forbidden(error, work):
            return Decision(None, "forbidden")
        if work.attempt >= self.options.attempts:
            return Decision(None, "exhausted")
        return self._timed(error, work, now)

    def _timed(self, error: Exception, work: Work, now: float) -> Decision:
        delay = self.jittered(work.attempt)
        if isinstance(error, Remote) and error.retry_after is not None:
            delay = max(delay, error.retry_after)
        if work.deadline is not None and now + delay + LEAST_LEFT > work.deadline:
            return Decision(None, "deadline")
        if self._circuit_wait is not None and self._circuit_wait(now) > delay:
            return Decision(None, "circuit_open")
        if not self.budget.allows:
            return Decision(None, "budget_denied")
        return Decision(delay, "retried")

    def jittered(self, attempt: int) -> float:
        """Full jitter: the delay after this attempt."""
        options = self.options
        grown = options.base * 2.0 ** min(attempt - 1, DOUBLINGS_MAX)
        return self._dice() * min(options.cap, grown)


def _is_refusal(error: Exception) -> bool:
    """Whether it was refused before it was sent: that says nothing about the callee."""
    return isinstance(error, NotSent) and error.__cause__ is None


def is_forbidden(error: Exception, work: Work) -> bool:
    """Whether a retry from here would multiply with the retries of others.

    They say so, or they are overloaded and our own caller is itself retrying.
    """
    if not isinstance(error, Remote):
        return False
    if error.do_not_retry:
        return True
    context = work.context
    return error.status in OVERLOADED and context is not None and context.upstream_attempt > 1


def repeats(*, is_idempotent: bool, on: RetryOn = None) -> Callable[[Exception], bool]:
    """After which errors a repeat is harmless.

    What was surely not sent, always; `on`, where it is given; else every failure of what is
    idempotent.
    """

    def harmless(error: Exception) -> bool:
        if isinstance(error, NotSent):
            return True
        if on is None:
            return is_idempotent and verdict_of(error) is FAILED
        return isinstance(error, on) if isinstance(on, type | tuple) else on(error)

    return harmless


class RetryLayer:
    """Repeats failed attempts; each carries its number in `Work.attempt`.

    What surfaces is the last error of the callee's, with the history attached: a rejection on our
    own side (`CircuitOpen` in the second attempt, say) surfaces only if the callee was never
    contacted. It never sleeps against an open circuit, nor beyond the deadline.
    """

    def __init__(self, judge: Judge, *, clock: Clock, observer: Observer) -> None:
        self._judge = judge
        self._succeed = judge.budget.succeed
        self._now = clock.now
        self._sleep = clock.sleep
        self._observer = observer

    def __repr__(self) -> str:
        return f"Retry({self._judge.options.attempts} attempts)"

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Do the work, again if need be."""
        start = self._now()
        try:
            result = await proceed(work)
        except Exception as error:  # noqa: BLE001 - it is raised again unless a retry succeeds
            first = error
        else:
            self._succeed()
            return result
        return await self._again(work, proceed, (first, start))

    async def _again(self, work: Work, proceed: Next[R], failed: tuple[Exception, float]) -> R:
        error, start = failed
        history: list[Attempt] = []
        contacted: Exception | None = None
        while True:
            now = self._now()
            history.append(Attempt(work.attempt, summary(error), now - start))
            if contacted is None or not isinstance(error, OWN_REJECTIONS):
                contacted = error
            decision = self._judge.decide(error, work, now)
            self._tell(work, error, decision)
            if decision.delay is None:
                attach_attempts(contacted, history)
                raise contacted
            await self._sleep(decision.delay)
            start = self._now()
            work = replace(work, attempt=work.attempt + 1)
            try:
                result = await proceed(work)
            except Exception as raised:  # noqa: BLE001 - it is raised again unless a retry succeeds
                error = raised
            else:
                self._succeed()
                return result

    def _tell(self, work: Work, error: Exception, decision: Decision) -> None:
        if decision.why in _SILENT:
            return
        retried = Retried(
            work.name,
            work.peer,
            decision.why,
            work.attempt,
            decision.delay or 0.0,
            type(error).__name__,
        )
        tell_of(self._observer, work, retried)
