"""Errors as RFC 9457 problem details, and back as `Remote`.

Which status answers which error is said in `core/answer.py`. May the caller retry it?

| raised while serving                                | may the caller retry?   |
|-----------------------------------------------------|-------------------------|
| the request does not decode, `Refused`              | no                      |
| `Expired`; `NotSent`, `Unanswered`, `Remote` of a   | no: `do_not_retry`      |
| nested call                                         |                         |
| `CommitUnknown`, `Unavailable`, `Busy`              | yes, after a second     |
| anything else                                       | yes                     |

Nested errors were retried here already: a retry from the caller would multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from callcast.core.answer import RAISED
from callcast.core.errors import (
    Busy,
    CommitUnknown,
    Expired,
    NotSent,
    Refused,
    Remote,
    Unanswered,
    Unavailable,
    WrongRequest,
)
from callcast.core.message import NO_HEADERS
from callcast.transports.headers import DO_NOT_RETRY, format_retry_after, parse_retry_after

CONTENT_TYPE = "application/problem+json"
_MEMBERS = frozenset({"type", "title", "status", "detail", "instance"})
TEXT_MAX = 500
"""Characters of a foreign error body that go into our message."""
_SOON = 1.0  # seconds: a database that is busy or away is asked again shortly


class Problem(Struct, frozen=True):
    """One problem: what a server writes and a client reads."""

    status: int
    detail: str
    type: str = "about:blank"
    title: str = ""
    data: Mapping[str, object] = NO_HEADERS
    """Extension members."""
    retry_after: float | None = None
    do_not_retry: bool = False

    def body(self, instance: str) -> bytes:
        """As ``application/problem+json``; extension members cannot replace the standard ones."""
        members: dict[str, object] = {
            "type": self.type,
            "title": self.title or title_of(self.status),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        members.update({key: self.data[key] for key in self.data if key not in _MEMBERS})
        return msgspec.json.encode(members, enc_hook=str)

    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["Retry-After"] = format_retry_after(self.retry_after)
        if self.do_not_retry:
            headers[DO_NOT_RETRY] = "1"
        return headers

    def remote(self) -> Remote:
        """As the caller sees it."""
        return Remote(
            self.detail,
            status=self.status,
            type=self.type,
            title=self.title or title_of(self.status),
            data={key: self.data[key] for key in self.data if key not in _MEMBERS},
            retry_after=self.retry_after,
            do_not_retry=self.do_not_retry,
        )


_RAISED: tuple[tuple[tuple[type[Exception], ...], Problem], ...] = (
    (
        (CommitUnknown, Unavailable, Busy),
        Problem(
            RAISED[CommitUnknown], "a store of this service is away or busy", retry_after=_SOON
        ),
    ),
    (
        (Expired,),
        Problem(RAISED[Expired], "the deadline passed before the answer", do_not_retry=True),
    ),
    (
        (NotSent,),
        Problem(RAISED[NotSent], "a service needed here is out of reach", do_not_retry=True),
    ),
    ((Unanswered,), Problem(RAISED[Unanswered], "no answer came in time", do_not_retry=True)),
    (
        (Remote,),
        Problem(RAISED[Remote], "a service needed here answered with an error", do_not_retry=True),
    ),
)
"""The first row that fits counts: subclasses stand before their bases."""


def problem_of(error: Exception) -> Problem | None:
    """The problem of an error raised while serving; None for one that is nobody's business."""
    if isinstance(error, Refused):
        return Problem(error.status, error.detail, error.type, data=plain(error.data))
    if isinstance(error, WrongRequest):
        return _wrong(error)
    for kinds, problem in _RAISED:
        if isinstance(error, kinds):
            return problem
    return None


def _wrong(error: WrongRequest) -> Problem:
    detail = str(error)
    return Problem(
        RAISED[WrongRequest],
        f"{error.field}: {detail}",
        data={"errors": [{"field": error.field, "detail": detail}]},
    )


def unexpected(correlation_id: str) -> Problem:
    """An error that says nothing about the inside; the log has the rest under the id."""
    return Problem(500, f"unexpected error; the log has it under {correlation_id}")


def with_correlation(problem: Problem, correlation_id: str) -> Problem:
    """The same problem with the id by which the logs of all services know it."""
    data = {**problem.data, "correlation_id": correlation_id}
    return msgspec.structs.replace(problem, data=data)


def read_problem(status: int, headers: Mapping[str, str], body: bytes, *, wall: float) -> Problem:
    """The problem in an error answer, also one that is no problem details.

    `headers` are found whatever their case; `wall` is seconds since the epoch, for a
    ``Retry-After`` that is a date.
    """
    wait = headers.get("Retry-After")
    retry_after = None if wait is None else parse_retry_after(wait, wall)
    do_not_retry = headers.get(DO_NOT_RETRY) == "1"
    members: dict[str, object] = {}
    if "json" in headers.get("Content-Type", ""):
        members = _members(body)
    detail = _text(members.get("detail")) or bounded_text(body) or title_of(status)
    return Problem(
        status,
        detail,
        _text(members.get("type")) or "about:blank",
        _text(members.get("title")) or title_of(status),
        data={key: members[key] for key in members if key not in _MEMBERS},
        retry_after=retry_after,
        do_not_retry=do_not_retry,
    )


def title_of(status: int) -> str:
    """The phrase of a status: ``Not Found``."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def bounded_text(body: bytes) -> str:
    """The start of a foreign body, fit for a message: printable, one line."""
    text = body[: TEXT_MAX * 4].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:TEXT_MAX]


def plain(data: Mapping[str, object]) -> Mapping[str, object]:
    """Extension members as they look after the wire."""
    made: Any = msgspec.to_builtins(data, str_keys=True, enc_hook=str)
    return dict(made)


def _members(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (ValueError, RecursionError):  # not even JSON: `bounded_text` shows what it is
        return {}


def _text(value: object) -> str:
    return value[: TEXT_MAX * 4] if isinstance(value, str) else ""
