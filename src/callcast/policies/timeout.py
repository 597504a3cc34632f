"""Bounds on one run and on one attempt."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Generator
from typing import TypeVar

from msgspec.structs import replace

from callcast.core.errors import Unanswered
from callcast.core.work import Next, Work
from callcast.policies.time_left import LEAST_LEFT, expired
from callcast.ports.clock import Clock

R = TypeVar("R")


class Timeout:
    """CONSUME: cancels a run after `limit` seconds, or at `Work.deadline` when that is sooner.

    Late by at most the coarse tick of 0.25 s. Raises `TimeoutError`, which is retried.
    """

    def __init__(self, limit: float, *, clock: Clock) -> None:
        self._limit = limit
        self._now = clock.now
        self._expire_at = clock.expire_at

    @types.coroutine
    def __call__(self, work: Work, proceed: Next[R], /) -> Generator[object, object, R]:
        """Do the work in time."""
        when = self._now() + self._limit
        if work.deadline is not None and work.deadline < when:
            when = work.deadline
        steps = proceed(work).__await__()
        try:
            # What never suspends cannot be cancelled, and needs nobody to watch it.
            pending = steps.send(None)
        except StopIteration as end:
            result: R = end.value
            return result
        try:
            with self._expire_at(when):
                return (yield from _resumed(steps, pending))
        except TimeoutError as error:
            if self._now() < when:  # the handler's own, not ours
                raise
            raise TimeoutError(
                f"{work.name!r}: the handler was cancelled at its timeout of {self._limit:g} s;"
                " raise timeout= or make it shorter"
            ) from error


def _resumed(steps: Generator[object, object, R], pending: object) -> Generator[object, object, R]:
    """The rest of a coroutine that has suspended once already, on `pending`."""
    try:
        yield pending
    except BaseException as error:  # noqa: BLE001 - thrown in, as into any coroutine
        try:
            pending = steps.throw(error)
        except StopIteration as end:
            result: R = end.value
            return result
        return (yield from _resumed(steps, pending))
    return (yield from steps)


class AttemptTimeout:
    """CALL: bounds one attempt by `limit` seconds and by the deadline of the call.

    With `share` the attempt gets at least that share of the time left, so that a call that is
    given a longer deadline has longer attempts as well. `limit` None bounds by the deadline alone.
    Sets `Work.until`; a fine timer is armed only where the transport has none (`has_timer`).
    Raises `Unanswered` when it rings, `Expired` when less than 1 ms is left at the start.
    """

    def __init__(
        self, limit: float | None, *, clock: Clock, has_timer: bool, share: float = 0.0
    ) -> None:
        self._limit = limit
        self._share = share
        self._has_timer = has_timer
        self._now = clock.now
        self._expire_at = clock.expire_at

    def __repr__(self) -> str:
        limit = "the deadline" if self._limit is None else f"{self._limit:g} s"
        return f"AttemptTimeout({limit})"

    def __call__(self, work: Work, proceed: Next[R], /) -> Awaitable[R]:
        """Make the attempt."""
        deadline, limit = work.deadline, self._limit
        if deadline is not None:
            until = self._within(deadline, work)
        elif limit is not None:
            until = self._now() + limit
        else:
            return proceed(work)
        work = replace(work, until=until)
        return proceed(work) if self._has_timer else self._timed(work, until, proceed)

    def _within(self, deadline: float, work: Work) -> float:
        now, limit = self._now(), self._limit
        left = deadline - now
        if left < LEAST_LEFT:
            raise expired(work, left)
        if limit is None or limit >= left:
            return deadline
        stretched = left * self._share
        return now + max(limit, stretched)

    async def _timed(self, work: Work, until: float, proceed: Next[R]) -> R:
        start = self._now()
        try:
            with self._expire_at(until, coarse=False):
                return await proceed(work)
        except TimeoutError as error:
            now = self._now()
            if now < until:  # the callee's own, not ours
                raise
            raise Unanswered(
                f"{work.name!r}: no answer within {now - start:.3f} s"
                f" (attempt {work.attempt}); it may have happened",
                id=work.id or None,
            ) from error
