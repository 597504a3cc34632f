"""Reading an answer: bounded in headers and body, and the connection always given back."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import ClientResponse
from msgspec import Struct

from callcast.transports.limits import HttpLimits

_ERROR = 400  # from this status on a body only explains, so its beginning is enough


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Found whatever their case."""
    body: bytes
    excess: str = ""
    """``headers`` or ``body`` when they are larger than allowed, and what matters is lost."""


async def read_answer(response: ClientResponse, limits: HttpLimits) -> Answer:
    """Read it whole. The connection is free again, or closed, when this returns or raises."""
    status, headers = response.status, response.headers
    size = sum(len(name) + len(value) for name, value in response.raw_headers)
    if size > limits.headers_max_bytes:
        response.close()
        return Answer(status, headers, b"", "headers")
    try:
        body = await _read(response, limits.body_max_bytes)
    except BaseException:
        response.close()
        raise
    if len(body) <= limits.body_max_bytes:
        response.release()
        return Answer(status, headers, body)
    response.close()
    return Answer(status, headers, body, "" if status >= _ERROR else "body")


async def _read(response: ClientResponse, limit: int) -> bytes:
    """The body, or a bit more than `limit` bytes of it.

    Piece by piece, though aiohttp can read all at once: that would decompress without a bound.
    """
    content = response.content
    if content.is_eof():  # nearly always: it came with the head, so no more than a buffer full
        return content.read_nowait()
    body = await content.readany()
    while len(body) <= limit and (piece := await content.readany()):
        body += piece
    return body
