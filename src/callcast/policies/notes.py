"""What a dead letter says about itself: the ``callcast-*`` headers, clean and bounded."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from callcast.core.work import Work

SUMMARY_MAX = 500
MESSAGE_MAX = 2_000
STACK_MAX = 8_192
"""Characters; the middle goes first, so that the outermost call and the error itself stay."""

FIRST_FAILED_AT = "callcast-first-failed-at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who failed: what does not change from one dead letter of a handler to the next."""

    source: str
    """The topic."""
    group: str
    handler: str
    """``module.function (file:line)``."""
    host: str
    version: str

    def notes(self, work: Work, *, attempts: int, wall: float) -> dict[str, str]:
        """The headers for a message that failed now (wall clock), for the `attempts`-th time.

        `callcast-first-failed-at` is taken over from the message's own headers, where an earlier
        round has left it.
        """
        now = timestamp(wall)
        message = work.message
        first = None if message is None else message.headers.get(FIRST_FAILED_AT)
        return {
            "callcast-source": self.source,
            "callcast-group": self.group,
            "callcast-handler": self.handler,
            "callcast-attempts": str(attempts),
            FIRST_FAILED_AT: first or now,
            "callcast-last-failed-at": now,
            "callcast-host": self.host,
            "callcast-version": self.version,
        }


def error_notes(error: BaseException, *, stack: bool) -> Mapping[str, str]:
    """The headers that say what went wrong; the stack only where it is kept for people."""
    notes = {
        "callcast-error-type": type_name(error),
        "callcast-error-message": bounded(text_of(error), MESSAGE_MAX),
    }
    if stack:
        lines = traceback.format_exception(error)
        notes["callcast-error-stack"] = bounded("".join(lines), STACK_MAX)
    return notes


def summary(error: BaseException) -> str:
    """``Refused: no such sku``: fit for a reason or a log line, at most 500 characters."""
    return bounded(f"{type(error).__name__}: {text_of(error)}", SUMMARY_MAX)


def type_name(error: BaseException) -> str:
    """``module.Class``; builtins without their module."""
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """What the error says; an error whose own ``__str__`` fails must not hide the first one."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - any fault of a foreign __str__ is told in its place
        return f"(its __str__ raised {type(fault).__name__})"


def bounded(text: str, limit: int) -> str:
    """Clean and at most `limit` characters: head and tail stay, the middle goes.

    NUL bytes and lone surrogates are spelt out: PostgreSQL and UTF-8 refuse them, and a dead letter
    must not fail because of what it says.
    """
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
    if len(clean) <= limit:
        return clean
    gap = "\n...\n" if "\n" in clean else "..."
    head = (limit - len(gap)) // 2
    tail = limit - len(gap) - head
    return clean[:head] + gap + clean[-tail:]


def timestamp(wall: float) -> str:
    """RFC 3339 with milliseconds, in UTC."""
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
