"""One absolute deadline for all attempts of a call, inherited from the work being served."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from msgspec.structs import replace

from callcast.core.errors import Unanswered
from callcast.core.work import Next, Work
from callcast.policies.time_left import LEAST_LEFT, expired
from callcast.ports.clock import Clock

R = TypeVar("R")


def effective(work: Work, now: float, *, default: float | None, cap: float | None) -> float | None:
    """The earliest of the inherited deadline, the work's own (or `default`) and `cap`.

    `default` and `cap` are seconds from now.
    """
    deadline = work.deadline
    if deadline is None and default is not None:
        deadline = now + default
    if cap is not None:
        deadline = earlier(deadline, now + cap)
    context = work.context
    return deadline if context is None else earlier(deadline, context.deadline)


def earlier(one: float | None, other: float | None) -> float | None:
    """The earlier of two times, of which None is never."""
    if one is None or other is None:
        return other if one is None else one
    return min(other, one)


class Deadline:
    """CALL and PUBLISH: fixes the deadline, and fails with `Expired` when none of it is left.

    `default` in seconds is for work that comes without one; `cap` bounds every work. No timer is
    armed here: `AttemptTimeout` bounds each attempt, `Retry` each wait and `Bulkhead` its queue.
    """

    def __init__(
        self, default: float | None = None, *, clock: Clock, cap: float | None = None
    ) -> None:
        self._default = default
        self._cap = cap
        self._is_inherited = default is None and cap is None
        self._now = clock.now

    def __repr__(self) -> str:
        limit = self._default if self._cap is None else self._cap
        return "Deadline(inherited)" if limit is None else f"Deadline({limit:g} s)"

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work, if there is time."""
        deadline = work.deadline
        if deadline is None and work.context is None and self._is_inherited:
            return proceed(work)
        now = self._now()
        if deadline is None or work.context is not None or self._cap is not None:
            deadline = effective(work, now, default=self._default, cap=self._cap)
        if deadline is None:
            return proceed(work)
        if deadline - now < LEAST_LEFT:
            raise expired(work, deadline - now)
        return proceed(work if deadline == work.deadline else replace(work, deadline=deadline))


class ServedDeadline:
    """SERVE: a request that arrives expired does not run; one that is late is cancelled.

    Its children are cancelled with it. Late by at most the coarse tick of 0.25 s. Raises `Expired`
    before the handler ran, `Unanswered` after: it may have taken effect.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self._expire_at = clock.expire_at

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Serve the request in time."""
        deadline = work.deadline
        if deadline is None:
            return await proceed(work)
        left = deadline - self._now()
        if left < LEAST_LEFT:
            raise expired(work, left)
        try:
            with self._expire_at(deadline):
                return await proceed(work)
        except TimeoutError as error:
            if self._now() < deadline:  # the handler's own, not ours
                raise
            raise Unanswered(
                f"{work.name!r}: the caller's deadline passed after {left:.3f} s of handling",
                id=work.id or None,
            ) from error
