"""Serving calls over HTTP: one ASGI application in front of a dispatcher."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from callcast.core.errors import Misuse, Undecodable, WrongRequest
from callcast.ports.codec import Codec
from callcast.ports.transport import Arrival, Dispatcher
from callcast.transports.hang_up import HangUp
from callcast.transports.headers import ATTEMPT, CAUSATION, attempt_of, timeout_of
from callcast.transports.limits import HttpLimits
from callcast.transports.problem import CONTENT_TYPE, Problem, problem_of, unexpected
from callcast.transports.requests import (
    Incoming,
    Reply,
    incoming_of,
    problem_reply,
    read_body,
    refusal_of,
)
from callcast.transports.rest import Exchange
from callcast.transports.routing import Route, Routes

_log = logging.getLogger("callcast.http")
_NOT_READY = (
    "this service takes no requests now: it is draining, or has not started; in a mounted"
    " application the outer lifespan must enter 'async with bus'"
)


Page = Callable[[], tuple[str, bytes] | None]
"""Content type and body of the metrics; None when the program sends them elsewhere."""


def asgi_app(
    dispatcher: Dispatcher,
    *,
    codec: Codec,
    limits: HttpLimits | None = None,
    new_id: Callable[[], str] = lambda: uuid4().hex,
    metrics: Page | None = None,
) -> Starlette:
    """What the dispatcher has as an application, plus ``/livez``, ``/readyz`` and ``/metrics``.

    Run it by any ASGI server, or mount it below a prefix. `new_id` makes correlation ids for
    requests that bring none. Raises `Misuse` for two operations on one path and method, and for
    a contract that cannot be bound to its path.
    """
    operations = Operations(dispatcher, codec, limits=limits or HttpLimits(), new_id=new_id)
    return Starlette(
        routes=[
            StarletteRoute("/livez", Health(lambda: dispatcher.is_alive)),
            StarletteRoute("/readyz", Health(lambda: dispatcher.is_ready)),
            StarletteRoute("/metrics", Metrics(metrics)),
            Mount("/", app=operations),
        ]
    )


class Health:
    """A health check: 200 or 503, never shed, no body worth parsing beyond ``status``."""

    def __init__(self, is_well: Callable[[], bool]) -> None:
        self._is_well = is_well

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one check."""
        del scope, receive
        is_well = self._is_well()
        body = msgspec.json.encode({"status": "ok" if is_well else "unavailable"})
        reply = Reply(200 if is_well else 503, body, {"Cache-Control": "no-store"})
        await reply.send(send)


class Metrics:
    """What Prometheus reads; 501 where nothing can write it, with what to install."""

    def __init__(self, page: Page | None) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scrape."""
        del scope, receive
        await self._reply().send(send)

    def _reply(self) -> Reply:
        why = "this program sends its metrics elsewhere: it has a provider of metrics of its own"
        try:
            page = None if self._page is None else self._page()
        except Misuse as error:
            page, why = None, str(error)
        if page is not None:
            return Reply(200, page[1], {"Cache-Control": "no-store"}, page[0])
        problem = Problem(501, why)
        return Reply(501, problem.body("/metrics"), {}, CONTENT_TYPE)


class Operations:
    """The operations of a dispatcher as an ASGI application."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        codec: Codec,
        *,
        limits: HttpLimits,
        new_id: Callable[[], str],
    ) -> None:
        self._dispatcher = dispatcher
        self._codec = codec
        self._limits = limits
        self._new_id = new_id
        self._routes = Routes(())  # made anew by _compile, when operations were added
        self._count = 0  # of compiled operations
        self._compile()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":  # a websocket: nothing here speaks it, so it is refused
            await send({"type": "websocket.close"})
            return
        request = incoming_of(scope, self._new_id)
        reply = await self._reply(request, receive)
        if reply is not None:  # else nobody listens any more
            await reply.send(send, correlation_id=request.correlation_id, method=request.method)

    async def _reply(self, request: Incoming, receive: Receive) -> Reply | None:
        target = self._target(request)
        if isinstance(target, Reply):
            return target
        body = await read_body(request, receive, self._limits)
        if body is None:
            return None
        if isinstance(body, Problem):
            return problem_reply(request, body, Connection="close")
        payload = Payload(target.exchange, target.params, request.query, body)
        return await self._serve(request, payload, receive)

    def _target(self, request: Incoming) -> Target | Reply:
        """What a request is for, or why it is not served; decided before its body is read."""
        if not self._dispatcher.is_ready:
            return problem_reply(request, Problem(503, _NOT_READY, retry_after=1.0))
        found = self._find(request.path)
        if found is None:
            return problem_reply(request, Problem(404, f"nothing is served at {request.path}"))
        route, params = found
        exchange = route.of(request.method)
        if exchange is None:
            problem = Problem(405, f"{route.template} takes {route.allow}")
            return problem_reply(request, problem, Allow=route.allow)
        refusal = refusal_of(request, self._limits)
        if refusal is not None:
            return problem_reply(request, refusal, Connection="close")
        return Target(exchange, params)

    async def _serve(self, request: Incoming, payload: Payload, receive: Receive) -> Reply | None:
        exchange = payload.exchange
        hang_up = HangUp(receive, self._limits.hang_up_after)
        try:
            result = await self._dispatcher.serve(exchange.operation, arrival_of(request, payload))
        except asyncio.CancelledError:
            if not hang_up.is_seen:
                raise
            return None
        except Exception as error:  # noqa: BLE001 - every error has its problem
            return problem_reply(request, _problem_of(error, payload, request))
        finally:
            await hang_up.close()
        if exchange.is_void:
            return Reply(204, b"")
        try:
            return Reply(200, exchange.encode(result))
        except Misuse as error:  # the handler's result is not what its contract says
            return problem_reply(request, _problem_of(error, payload, request))

    def _find(self, path: str) -> tuple[Route, Sequence[str]] | None:
        found = self._routes.find(path)
        if found is None and len(self._dispatcher.operations()) != self._count:
            self._compile()
            found = self._routes.find(path)
        return found

    def _compile(self) -> None:
        operations = self._dispatcher.operations()
        self._routes = Routes(Exchange(operation, self._codec) for operation in operations)
        self._count = len(operations)


class Target(Struct, frozen=True):
    """The operation a request is for, and its path's decoded parameters."""

    exchange: Exchange
    params: Sequence[str]


class Payload(Struct, frozen=True):
    """A request's places, decoded when the chain asks for it."""

    exchange: Exchange
    params: Sequence[str]
    query: str
    body: bytes

    def __call__(self) -> object:
        """The request's value; raises `WrongRequest` naming the field."""
        try:
            return self.exchange.read(self.params, self.query, self.body)
        except Undecodable as error:
            raise WrongRequest(str(error), field=error.field) from error


def arrival_of(request: Incoming, payload: Payload) -> Arrival:
    """What the dispatcher is told."""
    headers = request.headers
    return Arrival(
        payload,
        timeout_of(headers),
        attempt_of(headers.get(ATTEMPT)),
        request.idempotency_key,
        request.correlation_id,
        headers.get(CAUSATION),
        headers,
        request.url,
    )


def _problem_of(error: Exception, payload: Payload, request: Incoming) -> Problem:
    problem = problem_of(error)
    if problem is None:
        _log.error(
            "unexpected error while serving a call",
            exc_info=error,
            extra={
                "operation": payload.exchange.operation.name,
                "correlation_id": request.correlation_id,
                "causation_id": request.headers.get(CAUSATION),
            },
        )
        problem = unexpected(request.correlation_id)
    return problem
