"""One absolute deadline for all attempts of a call, inherited from the work being served."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from msgspec.structs import replace

from callcast.core.errors import Expired, Unanswered
from callcast.core.work import Next, Work
from callcast.ports.clock import Clock

R = TypeVar("R")

LEAST_LEFT = 0.001
"""Seconds: with less left nothing is sent. Peers read an encoded 0 as "no deadline"."""


def effective(work: Work, limit: float | None, now: float) -> float | None:
    """The earliest of the inherited deadline and the call's own (or `limit` seconds from now)."""
    deadline = work.deadline
    if deadline is None and limit is not None:
        deadline = now + limit
    context = work.context
    inherited = None if context is None else context.deadline
    if inherited is None:
        return deadline
    return inherited if deadline is None else min(deadline, inherited)


def expired(work: Work, left: float) -> Expired:
    """The error for work that has no time left."""
    return Expired(
        f"{work.name!r}: the deadline leaves {left:.4f} s, and less than {LEAST_LEFT} s is too"
        " little to send anything; nothing was sent",
        id=work.id or None,
    )


class Deadline:
    """CALL and PUBLISH: fixes the deadline, and fails with `Expired` when none of it is left.

    `limit` is the operation's own, in seconds, for work that comes without a deadline. No timer is
    armed here: `AttemptTimeout` bounds each attempt, `Retry` each wait and `Bulkhead` its queue.
    """

    def __init__(self, limit: float | None = None, *, clock: Clock) -> None:
        self._limit = limit
        self._now = clock.now

    def __repr__(self) -> str:
        return "Deadline()" if self._limit is None else f"Deadline({self._limit:g} s)"

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Do the work, if there is time."""
        now = self._now()
        deadline = work.deadline
        if deadline is None or work.context is not None:
            deadline = effective(work, self._limit, now)
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
