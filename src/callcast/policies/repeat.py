"""CONSUME: the immediate repeats of a failed handler, inside one delivery."""

from __future__ import annotations

from msgspec.structs import replace

from callcast.core.outcome import Outcome
from callcast.core.work import Next, Work
from callcast.policies.history import mark_run
from callcast.policies.recovery import Recovery, single
from callcast.ports.clock import Clock


class Repeat:
    """Runs the handler again at once, as often as the recovery says; raises its last error.

    The message is decoded once, and each run has a timeout of its own (the `Timeout` inside), but
    all runs together end within `timeout` seconds: the lease is renewed no longer than that.
    What is permanent, busy or away is not repeated. `Work.attempt` goes on over the rounds:
    the n-th run of round r is r * (immediate + 1) + n.
    """

    def __init__(self, recovery: Recovery, *, clock: Clock, timeout: float) -> None:
        self._recovery = recovery
        self._now = clock.now
        self._timeout = timeout
        self._runs = recovery.immediate + 1

    async def __call__(self, work: Work, proceed: Next[Outcome], /) -> Outcome:
        """Do the work until it succeeds or no repeat is left."""
        start = self._now()
        if work.round:
            work = replace(work, attempt=work.round * self._runs + 1)
        run = 0
        while True:
            try:
                return await proceed(work)
            except Exception as error:
                error = single(error)
                mark_run(error, work.attempt)
                run += 1
                if not self._goes_on(error, run, start):
                    raise
            deadline = start + self._timeout
            if work.deadline is not None:
                deadline = min(deadline, work.deadline)
            work = replace(work, attempt=work.attempt + 1, deadline=deadline)

    def _goes_on(self, error: Exception, run: int, start: float) -> bool:
        recovery = self._recovery
        return (
            run <= recovery.rule(error).immediate
            and recovery.is_repeatable(error)
            and self._now() < start + self._timeout
        )
