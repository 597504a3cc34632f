"""CONSUME, outside: every error becomes an outcome here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from callcast.core.errors import Duplicate
from callcast.core.outcome import DONE, Dead, Later, Outcome
from callcast.core.work import Next, Work
from callcast.policies.history import run_of
from callcast.policies.notes import Origin, error_notes
from callcast.policies.recovery import Recovery, single
from callcast.ports.clock import Clock


class Recover:
    """Turns what the handler raised into an outcome, with the notes of a dead letter.

    | raised                                | becomes                                       |
    |---------------------------------------|-----------------------------------------------|
    | `Exception`                           | what `Recovery.outcome` says                  |
    | `Duplicate`, also in a group          | `Done`: its effect is committed               |
    | cancellation                          | passes: the worker releases it, uncounted     |
    | `SystemExit`, `KeyboardInterrupt`, other `BaseException` | passes: the process is about |
    |                                       | to end; the worker releases the rest          |
    """

    def __init__(
        self, recovery: Recovery, origin: Origin, *, clock: Clock, dice: Callable[[], float]
    ) -> None:
        self._recovery = recovery
        self._origin = origin
        self._clock = clock
        self._dice = dice

    async def __call__(self, work: Work, proceed: Next[Outcome], /) -> Outcome:
        """Do the work; the outcome, whatever the handler raised."""
        try:
            outcome = await proceed(work)
        except Exception as error:  # noqa: BLE001 - every error has a verdict
            return self._verdict(work, single(error))
        except Duplicate:
            return DONE
        except BaseExceptionGroup as group:  # a TaskGroup in the handler wraps Duplicate
            if group.subgroup(Duplicate) is None:
                raise
            return DONE
        if isinstance(outcome, Dead):
            return self._dead(work, outcome)
        return outcome

    def _verdict(self, work: Work, error: Exception) -> Outcome:
        outcome = self._recovery.outcome(error, work.round, self._dice)
        if isinstance(outcome, Dead):
            return self._dead(work, outcome)
        if isinstance(outcome, Later):
            notes = {**self._notes(work, error), **error_notes(error, stack=False)}
            return replace(outcome, notes=notes)
        return outcome

    def _dead(self, work: Work, outcome: Dead) -> Dead:
        """Give a dead letter its notes; one that no handler failed on has no error among them."""
        cause = outcome.cause
        notes = self._notes(work, cause)
        if cause is not None:
            notes |= error_notes(cause, stack=True)
        return replace(outcome, notes={**notes, **outcome.notes})

    def _notes(self, work: Work, error: Exception | None) -> dict[str, str]:
        run = None if error is None else run_of(error)
        if run is None:  # no handler ran: only the earlier rounds count
            run = work.round * (self._recovery.immediate + 1)
        return self._origin.notes(work, attempts=run, wall=self._clock.wall())
