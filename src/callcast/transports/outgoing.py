"""What every transport derives from a call's `Work` before it sends. Pure."""

from __future__ import annotations

from typing import Any, cast

from callcast.core.contract import Operation
from callcast.core.errors import Expired, Misuse
from callcast.core.work import Work

LEAST = 0.001
"""Seconds: with less left nothing is sent."""


_OPERATION: type[object] = Operation  # narrowing by the generic class leaves its types unknown


def operation_of(work: Work) -> Operation[Any, Any]:
    """The operation that is called."""
    if not isinstance(work.contract, _OPERATION):
        raise Misuse(f"{work.name}: only operations can be called")
    return cast("Operation[Any, Any]", work.contract)


def ends_at(work: Work, operation: Operation[Any, Any], now: float) -> float:
    """When the attempt ends, in monotonic seconds: the earlier of attempt and deadline.

    There always is an end: the operation's own deadline when the work says none. Raises
    `Expired` when less than a millisecond is left.
    """
    until = now + operation.deadline if work.deadline is None else work.deadline
    if work.until is not None and work.until < until:
        until = work.until
    if until - now < LEAST:
        raise Expired(f"{operation.name}: the deadline has passed, nothing was sent", id=work.id)
    return until


def correlation_of(work: Work) -> str:
    """The id shared by all that comes of the first request; a first call starts one."""
    return work.context.correlation_id if work.context else work.id


def causation_of(work: Work) -> str | None:
    """The id of the message or call that causes this one."""
    return work.context.message_id if work.context else None
