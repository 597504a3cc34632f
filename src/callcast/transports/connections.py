"""Connections to one peer: a pool that is renewed now and then, and the moment of sending."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from ssl import SSLContext

from aiohttp import (
    ClientRequest,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from callcast.core.errors import Misuse, NotSent
from callcast.transports.limits import HttpLimits
from callcast.transports.tls import Trust

HEADERS_MAX = 128
"""Headers of an answer."""
_ACCEPT = "application/json, application/problem+json;q=0.9, */*;q=0.1"
_FOREVER = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class Sending:
    """One attempt on its way; told by the connector when it got a connection."""

    __slots__ = ("is_sent",)

    def __init__(self) -> None:
        self.is_sent: bool = False
        """Whether the request may have left: it is written at once when there is a connection."""


SENDING: ContextVar[Sending | None] = ContextVar("callcast_sending", default=None)
"""The attempt of the running task; set by the transport around each request."""


class Connector(TCPConnector):
    """Marks the attempt as sent, and lets it have one connection only.

    aiohttp sends an idempotent request again by itself when a kept connection turns out closed.
    Whether to send again is the retry policy's to decide, so the second connection is refused.
    """

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
    ) -> Connection:
        """A connection from the pool, or a new one."""
        sending = SENDING.get()
        if sending is not None and sending.is_sent:
            raise ServerDisconnectedError("the connection was closed before an answer came")
        connection = await super().connect(req, traces, timeout)
        if sending is not None:
            sending.is_sent = True
        return connection


class Pool:
    """One session and the calls that use it."""

    __slots__ = ("born", "in_flight", "loop", "session")

    def __init__(
        self,
        limits: HttpLimits,
        headers: Mapping[str, str],
        now: float,
        *,
        context: SSLContext | None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.born: float = now
        self.in_flight: int = 0
        self.session: ClientSession = ClientSession(
            connector=Connector(
                limit=limits.connections_max,
                keepalive_timeout=limits.keep_alive,
                ttl_dns_cache=10,
                ssl=True if context is None else context,
            ),
            cookie_jar=DummyCookieJar(),
            timeout=_FOREVER,  # attempts are bounded by our own clock
            headers={"Accept": _ACCEPT, **headers},
            max_line_size=8190,
            max_field_size=min(8190, limits.headers_max_bytes),
            max_headers=HEADERS_MAX,
        )


class Pools:
    """The pool in use, and the aged ones whose last calls are still on their way."""

    def __init__(
        self,
        peer: str,
        limits: HttpLimits,
        headers: Mapping[str, str],
        *,
        trust: Trust | None = None,
    ) -> None:
        self._trust = trust
        self._peer = peer
        self._headers = headers
        self._limits = limits
        self._current: Pool | None = None  # replaced by enter() when it is old
        self._aged: set[Pool] = set()  # closed by leave() when their last call has ended
        self._is_closed = False

    def enter(self, now: float) -> Pool:
        """The pool for one more call; every `enter` is followed by one `leave`.

        Raises `NotSent` after `close`, `Misuse` on another event loop than the first call's.
        """
        pool = self._current
        if pool is None or now - pool.born > self._limits.connection_age_max:
            pool = self._renewed(now)
        if pool.loop is not asyncio.get_running_loop():
            raise Misuse(
                f"the connections to {self._peer} belong to another event loop: one bus, one loop"
            )
        pool.in_flight += 1
        return pool

    def leave(self, pool: Pool) -> bool:
        """End a call's use of its pool; whether it is aged and was left by its last call.

        Then the caller closes its session.
        """
        pool.in_flight -= 1
        if self._aged and not pool.in_flight and pool in self._aged:
            self._aged.discard(pool)
            return True
        return False

    async def close(self) -> None:
        """Close all connections at once; calls on their way end as `Unanswered`. Idempotent."""
        self._is_closed = True
        pools = [*self._aged, *([self._current] if self._current else [])]
        self._aged.clear()
        self._current = None
        for pool in pools:
            await pool.session.close()

    def _renewed(self, now: float) -> Pool:
        if self._is_closed:
            raise NotSent(f"the connections to {self._peer} are closed")
        context = None if self._trust is None else self._trust.context()
        if self._current is not None:
            self._aged.add(self._current)
        self._current = Pool(self._limits, self._headers, now, context=context)
        return self._current
