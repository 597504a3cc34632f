"""Calls over HTTP by aiohttp: one attempt, one request, one verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import ClientError
from msgspec import Struct
from multidict import CIMultiDict, istr
from yarl import URL

from callcast.core.contract import Operation
from callcast.core.errors import Misuse, NotSent, Remote, Unanswered
from callcast.core.message import NO_HEADERS
from callcast.core.tls import Tls
from callcast.core.work import Work
from callcast.ports.clock import Clock
from callcast.ports.codec import Codec
from callcast.ports.observer import Observer
from callcast.transports.answers import Answer, read_answer
from callcast.transports.connections import SENDING, Pools, Sending
from callcast.transports.headers import (
    ATTEMPT,
    CAUSATION,
    CORRELATION,
    IDEMPOTENCY,
    TIMEOUT,
    checked_headers,
    checked_value,
    format_key,
    format_timeout,
    sendable,
)
from callcast.transports.limits import HttpLimits
from callcast.transports.outgoing import causation_of, correlation_of, ends_at, operation_of
from callcast.transports.problem import TEXT_MAX, read_problem
from callcast.transports.rest import PATH_SAFE, Exchange, Wire
from callcast.transports.tls import Trust

LARGE = 2**20  # bytes: aiohttp writes larger bodies in pieces when it gets a file
_EXCHANGES_MAX = 1_000  # compiled operations kept; contracts made in a loop must not fill memory

# Names that aiohttp need not fold to one case again for each request.
_TIMEOUT, _ATTEMPT, _CORRELATION = istr(TIMEOUT), istr(ATTEMPT), istr(CORRELATION)
_CONTENT_TYPE = istr("Content-Type")


class AiohttpTransport:
    """Implements `ports.transport.Transport` over HTTP/1.1 to one peer.

    Connections are made on first use, in the loop of that use. Nothing is hidden: no redirects,
    no cookies, no retries of aiohttp's own. Every attempt ends by `Work.until` and
    `Work.deadline`. `headers` and `auth` (the value of ``Authorization``, or a function that
    gives it for each attempt) go with every request and into no message, log or repr.
    Raises `Misuse` for a URL that is not ``http(s)://host[:port][/prefix]``.
    """

    has_timer = True

    def __init__(  # noqa: PLR0913 - a peer's settings and three ports, all but the address named
        self,
        peer: str,
        url: str,
        *,
        codec: Codec,
        clock: Clock,
        observer: Observer,
        headers: Mapping[str, str] = NO_HEADERS,
        auth: Callable[[], str] | str | None = None,
        tls: Tls | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        self._peer = peer
        self._url = checked_url(url, peer)
        self._codec = codec
        self._clock = clock
        self._observer = observer
        self._auth = auth
        self._limits = limits or HttpLimits()
        self._exchanges: dict[int, Exchange] = {}  # by id() of the operation, which each holds
        self._pools = Pools(
            peer,
            self._limits,
            checked_headers(headers, f"peer {peer!r}"),
            trust=None if tls is None else Trust(tls, peer),
        )
        if isinstance(auth, str):
            checked_value(auth, f"peer {peer!r}, auth")

    def __repr__(self) -> str:
        return f"AiohttpTransport({self._peer!r}, {self._url!r})"

    def prepare(self, operation: Operation[Any, Any]) -> Exchange:
        """Compile an operation; raises `Misuse` when its types cannot be bound to its path."""
        if len(self._exchanges) >= _EXCHANGES_MAX:
            self._exchanges.clear()
        exchange = Exchange(operation, self._codec)
        self._exchanges[id(operation)] = exchange
        return exchange

    async def send(self, work: Work) -> object:
        """Make one attempt; see `Transport.send`."""
        exchange = self._exchanges.get(id(work.contract)) or self.prepare(operation_of(work))
        now = self._clock.now()
        until = ends_at(work, exchange.operation, now)
        attempt = Attempt(work, exchange, exchange.write(work.value), now, until)
        url = self._url + attempt.wire.target
        status = None
        span = self._observer.attempt(work, url)
        try:
            answer = await self._fetch(attempt, url)
            status = answer.status
            value = self._value(exchange, answer)
        except BaseException as error:
            span.end(error, status=status)
            raise
        span.end(status=status)
        return value

    async def close(self) -> None:
        """Close all connections; attempts on their way end as `Unanswered`. Idempotent."""
        await self._pools.close()

    async def _fetch(self, attempt: Attempt, url: str) -> Answer:
        headers = self._headers_of(attempt)
        body = self._body_of(attempt)
        sending = Sending()
        pool = self._pools.enter(attempt.began)
        token = SENDING.set(sending)
        try:
            with self._clock.expire_at(attempt.until, coarse=False):
                response = await pool.session.request(
                    attempt.exchange.binding.method,
                    URL(url, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                )
                return await read_answer(response, self._limits)
        except (TimeoutError, ClientError, OSError) as error:
            raise self._verdict(attempt, error, is_sent=sending.is_sent) from error
        finally:
            SENDING.reset(token)
            if self._pools.leave(pool):
                await pool.session.close()

    def _verdict(
        self, attempt: Attempt, error: Exception, *, is_sent: bool
    ) -> NotSent | Unanswered:
        work = attempt.work
        if isinstance(error, TimeoutError) and self._clock.now() >= attempt.until:
            why = f"no answer within {attempt.until - attempt.began:.3f} s"
        else:
            why = f"{type(error).__name__}: {str(error)[:TEXT_MAX]}"
        kind = Unanswered if is_sent else NotSent
        return kind(f"{work.name} at {self._peer} ({self._url}): {why}", id=work.id)

    def _value(self, exchange: Exchange, answer: Answer) -> object:
        if answer.excess:
            raise Remote(
                self._limits.exceeded(answer.excess),
                status=502,
                title="Answer too large",
                data={"status": answer.status},
                do_not_retry=True,
            )
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return exchange.answer(answer.status, answer.body)
        raise read_problem(
            answer.status, answer.headers, answer.body, wall=self._clock.wall()
        ).remote()

    def _body_of(self, attempt: Attempt) -> bytes | BytesIO | None:
        body = attempt.wire.body
        if body is not None and len(body) > self._limits.body_max_bytes:
            raise Misuse(
                f"{attempt.work.name}: the request has {len(body)} bytes, the limit is"
                f" {self._limits.body_max_bytes}; raise Settings(body_max_bytes=) on both sides"
            )
        return body if body is None or len(body) <= LARGE else BytesIO(body)

    def _headers_of(self, attempt: Attempt) -> CIMultiDict[str]:
        work, exchange = attempt.work, attempt.exchange
        headers = CIMultiDict(
            {
                _TIMEOUT: format_timeout(attempt.until - attempt.began),
                _ATTEMPT: str(work.attempt),
                _CORRELATION: sendable(correlation_of(work)),
            }
        )
        if exchange.binding.has_body:
            headers[_CONTENT_TYPE] = self._codec.content_type
        if (cause := causation_of(work)) is not None:
            headers[CAUSATION] = sendable(cause)
        if exchange.operation.once:
            headers[IDEMPOTENCY] = format_key(work.id)
        for name, value in self._observer.carrier(work).items():
            headers[name] = sendable(value)
        if self._auth is not None:
            headers["Authorization"] = self._authorization(self._auth)
        return headers

    def _authorization(self, auth: Callable[[], str] | str) -> str:
        if isinstance(auth, str):
            return auth
        try:
            value = auth()
        except Exception as error:
            raise NotSent(f"the auth function of peer {self._peer!r} failed") from error
        return checked_value(value, f"peer {self._peer!r}, auth")


class Attempt(Struct, frozen=True):
    """One request about to go out; times are monotonic seconds."""

    work: Work
    exchange: Exchange
    wire: Wire
    began: float
    until: float


def checked_url(url: str, peer: str) -> str:
    """A peer's base URL without a trailing slash; raises `Misuse` without repeating the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Misuse(f"peer {peer!r}: the URL's port or host is malformed") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise Misuse(f"peer {peer!r}: the URL must be http(s)://host[:port][/prefix]")
    if parts.username is not None or parts.password is not None:
        raise Misuse(f"peer {peer!r}: credentials do not belong in a URL; hand them in as auth=")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = host if port is None else f"{host}:{port}"
    prefix = quote(parts.path.rstrip("/"), safe=PATH_SAFE + "/%")  # "%": it may be encoded already
    return f"{parts.scheme}://{where}{prefix}"
