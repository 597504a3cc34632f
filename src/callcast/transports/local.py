"""Calls to a service of the same process: the chain, deadlines and errors are those of HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from callcast.core.contract import Operation
from callcast.core.errors import Expired, Unanswered
from callcast.core.recorded import CALL_ID
from callcast.core.work import Work
from callcast.ports.clock import Clock
from callcast.ports.transport import Arrival, Dispatcher
from callcast.transports.outgoing import causation_of, correlation_of, ends_at, operation_of
from callcast.transports.problem import Problem, problem_of, unexpected, with_correlation

_HANDED_ON = ("traceparent", "tracestate", "baggage")

_log = logging.getLogger("callcast.local")


class LocalTransport:
    """Implements `ports.transport.Transport` on a dispatcher of this process.

    Values are handed over as they are, neither encoded nor copied: what the handler changes in
    its request, the caller sees. All else is as over HTTP, so that moving the service to another
    process changes nothing: the handler sees attempt, ids and remaining time, its errors arrive
    as `Remote` with the same status, type and data.
    """

    has_timer = True

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock

    def prepare(self, operation: Operation[Any, Any]) -> object:
        """Nothing is to be compiled: values are handed over as they are."""
        return operation

    async def send(self, work: Work) -> object:
        """Make one attempt; see `Transport.send`."""
        operation = operation_of(work)
        now = self._clock.now()
        until = ends_at(work, operation, now)
        arrival = arrival_of(work, operation, until - now)
        try:
            with self._clock.expire_at(until, coarse=False):
                return await self._dispatcher.serve(operation, arrival)
        except Exception as error:
            if (
                isinstance(error, (TimeoutError, Expired, Unanswered))
                and self._clock.now() >= until
            ):
                raise Unanswered(
                    f"{operation.name}: no answer within {until - now:.3f} s", id=work.id
                ) from error
            raise self._problem(error, arrival).remote() from error

    async def close(self) -> None:
        """Nothing is open."""

    def _problem(self, error: Exception, arrival: Arrival) -> Problem:
        correlation_id = arrival.correlation_id or ""
        problem = problem_of(error)
        if problem is None:
            _log.error(
                "unexpected error while serving a call",
                exc_info=error,
                extra={
                    "correlation_id": correlation_id,
                    "causation_id": arrival.causation_id,
                },
            )
            problem = unexpected(correlation_id)
        return with_correlation(problem, correlation_id)


def arrival_of(work: Work, operation: Operation[Any, Any], left: float) -> Arrival:
    """What a server would see of this call."""
    return Arrival(
        lambda: work.value,
        timeout=left,
        attempt=work.attempt,
        idempotency_key=work.id if operation.once else None,
        correlation_id=correlation_of(work),
        causation_id=causation_of(work),
        headers=_headers(work),
    )


def _headers(work: Work) -> Mapping[str, str]:
    """The id of the call, by which the record knows whose attempt is served, and a trace.

    The trace is that which came in with the caller's own work: without a tracer it goes on so.
    """
    own = {CALL_ID: work.id} if work.id else {}
    if work.context is None or not work.context.headers:
        return own
    came = work.context.headers
    return {name: came[name] for name in _HANDED_ON if name in came} | own
