"""Bounds of HTTP, both sides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Sizes in bytes, times in seconds."""

    body_max_bytes: int = 1_048_576
    """Of a request and of an answer, after decompression."""
    headers_max_bytes: int = 32_768
    """Names and values of one request or answer together."""
    connections_max: int = 100
    """Client: open connections to one peer; above the bulkhead's 64, so that the bulkhead rules."""
    keep_alive: float = 4.0
    """Client: an idle connection is reused this long. Below the 5 s after which uvicorn closes:
    a request on a connection that the server is just closing ends as `Unanswered`."""
    connection_age_max: float = 300.0
    """Client: then new connections are made, to whatever addresses the name has by then."""
    body_wait: float = 10.0
    """Server: how long a request's body may take to arrive."""
    hang_up_after: float = 0.05
    """Server: a handler that runs longer than this is watched for its caller hanging up."""

    def exceeded(self, part: str) -> str:
        """The sentence about an answer whose ``body`` or ``headers`` are larger than allowed."""
        if part == "body":
            return (
                f"the body of the answer exceeds {self.body_max_bytes} bytes: ask for less, or"
                " raise Settings(body_max_bytes=)"
            )
        return f"the headers of the answer exceed {self.headers_max_bytes} bytes"
