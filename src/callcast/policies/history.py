"""What was tried behind an error, attached to the error itself, whosever class it is."""

from __future__ import annotations

from collections.abc import Sequence

from callcast.core.errors import Attempt, CallcastError
from callcast.policies.notes import bounded

ATTEMPTS = "callcast_attempts"
"""The attribute on errors that are not ours: theirs may mean something else by ``attempts``."""
RUN = "callcast_run"
_PREFIX = "callcast: attempt "
_LINE_MAX = 300


def attempts_of(error: BaseException) -> tuple[Attempt, ...]:
    """The attempts of a call before this error surfaced, oldest first; empty when none is known."""
    if isinstance(error, CallcastError):
        return error.attempts
    found: tuple[Attempt, ...] = getattr(error, ATTEMPTS, ())
    return found


def attach_attempts(error: Exception, attempts: Sequence[Attempt]) -> None:
    """Attach the history of a call; several attempts are told in the error's notes as well.

    The notes of an earlier call go first: some programs raise one error object again and again.
    """
    history = tuple(attempts)
    if isinstance(error, CallcastError):
        error.attempts = history
    else:
        _set(error, ATTEMPTS, history)
    if len(history) < 2:
        return
    kept = [note for note in getattr(error, "__notes__", ()) if not note.startswith(_PREFIX)]
    for each in history:
        line = f"{_PREFIX}{each.number} took {each.took:.3f} s: {each.error}"
        kept.append(bounded(line, _LINE_MAX))
    _set(error, "__notes__", kept)


def mark_run(error: Exception, number: int) -> None:
    """Say which run of a handler this error ended (1 is the first over all rounds)."""
    _set(error, RUN, number)


def run_of(error: BaseException) -> int | None:
    """Which run of a handler this error ended; None when no handler ran."""
    found: int | None = getattr(error, RUN, None)
    return found


def _set(error: Exception, name: str, value: object) -> None:
    try:
        setattr(error, name, value)
    except AttributeError:
        # A frozen error (a dataclass, say) cannot take it: the error itself matters more.
        return
