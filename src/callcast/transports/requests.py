"""A request as it came and a reply as it goes, on bare ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from callcast.core.message import NO_HEADERS
from callcast.transports.headers import CORRELATION, correlation_of, parse_key
from callcast.transports.limits import HttpLimits
from callcast.transports.problem import CONTENT_TYPE, Problem, with_correlation
from callcast.transports.rest import PATH_SAFE, literal_of

DISCARDED_MAX = 8
"""How many times the limit is read and thrown away before the connection is closed on it."""
_DIGITS_MAX = 20  # of Content-Length; longer ones are too large anyway
_JSON = "application/json"
_CORRELATION = CORRELATION.lower().encode()


class Incoming(Struct, frozen=True):
    """A request without its body."""

    method: str
    path: str
    """Percent-encoded, below the prefix the application is mounted at."""
    query: str
    headers: Mapping[str, str]
    """Lower-case names; repeated headers are joined by a comma."""
    headers_bytes: int
    correlation_id: str
    """The caller's, or a new one."""
    idempotency_key: str | None
    """None when there is none; empty when it is malformed."""
    url: str
    """``scheme:path``, the prefix included; the scheme is what the server was reached by, as far as
    it knows (behind a proxy it must be told to believe ``X-Forwarded-Proto``)."""


class Reply(Struct, frozen=True):
    """A whole answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS
    content_type: str = _JSON

    async def send(self, send: Send, *, correlation_id: str = "", method: str = "") -> None:
        """Write it; HEAD gets the headers only."""
        headers = [(b"content-length", str(len(self.body)).encode())]
        if self.body:
            headers.append((b"content-type", self.content_type.encode()))
        if correlation_id:
            headers.append((_CORRELATION, correlation_id.encode()))
        if self.status == 204:
            del headers[0]  # RFC 9110 forbids it there
        for name, value in self.headers.items():
            headers.append((name.lower().encode(), value.encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else self.body})


def problem_reply(request: Incoming, problem: Problem, **headers: str) -> Reply:
    """An error as an answer."""
    known = with_correlation(problem, request.correlation_id)
    return Reply(
        problem.status,
        known.body(request.path),
        {**problem.headers(), **headers},
        CONTENT_TYPE,
    )


def incoming_of(scope: Scope, new_id: Callable[[], str]) -> Incoming:
    """What the server says of a request, in one pass over its headers."""
    size = 0
    headers: dict[str, str] = {}
    raw: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for raw_name, raw_value in raw:
        size += len(raw_name) + len(raw_value)
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    key = headers.get("idempotency-key")
    whole, path = paths_of(scope)
    return Incoming(
        scope["method"],
        path,
        scope["query_string"].decode("latin-1"),
        headers,
        size,
        correlation_of(headers) or new_id(),
        None if key is None else parse_key(key) or "",
        f"{scope.get('scheme', 'http')}:{whole}",
    )


def paths_of(scope: Scope) -> tuple[str, str]:
    """The percent-encoded path, and the same below the mount's prefix.

    Some frameworks hand on the whole path to what they mount, others what is below the prefix.
    """
    raw: bytes | None = scope.get("raw_path")
    path = quote(scope["path"], safe=PATH_SAFE + "/") if raw is None else raw.decode("latin-1")
    root: str = scope.get("root_path", "")
    if root:
        prefix = literal_of(root)
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
            return path, path[len(prefix) :]
        return prefix + path, path
    return path, path


def refusal_of(request: Incoming, limits: HttpLimits) -> Problem | None:
    """Why a request is refused by its headers alone; None when it is not."""
    if request.headers_bytes > limits.headers_max_bytes:
        return Problem(431, f"the headers exceed {limits.headers_max_bytes} bytes")
    if request.idempotency_key == "":
        return Problem(400, "Idempotency-Key must be a quoted string of 1 to 256 characters")
    media = request.headers.get("content-type", _JSON)
    if media != _JSON and not _is_json(media):
        return Problem(415, f"send {_JSON}")
    return None


async def read_body(
    request: Incoming, receive: Receive, limits: HttpLimits
) -> bytes | Problem | None:
    """The body, counted while it comes: ``Content-Length`` may lie or be missing.

    A `Problem` when it is too large (413) or too slow (408), None when the caller hung up.
    """
    headers = request.headers
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    length = headers.get("content-length", "0")[:_DIGITS_MAX]
    most = limits.body_max_bytes if "expect" in headers else limits.body_max_bytes * DISCARDED_MAX
    if not length.isdecimal() or int(length) > most:
        return _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_wait):
            return await _received(receive, limits)
    except TimeoutError:
        return Problem(408, f"the body did not arrive within {limits.body_wait} s")


async def _received(receive: Receive, limits: HttpLimits) -> bytes | Problem | None:
    """The body; one over the limit is counted on, not kept, so that its sender hears of it.

    Closing on unread bytes resets the connection, and the answer would be lost on the way.
    """
    body = b""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size <= limits.body_max_bytes:
            body = body + piece if body else piece
        if size > limits.body_max_bytes * DISCARDED_MAX:
            return _too_large(limits)
        if not message.get("more_body", False):
            return body if size <= limits.body_max_bytes else _too_large(limits)


def _too_large(limits: HttpLimits) -> Problem:
    return Problem(413, f"the body exceeds {limits.body_max_bytes} bytes")


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind in {"", _JSON} or (kind.startswith("application/") and kind.endswith("+json"))
