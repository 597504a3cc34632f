"""One classifier for all policies: what an error says about the one who was asked.

| error                                            | verdict | why                                 |
|--------------------------------------------------|---------|-------------------------------------|
| none                                             | OK      |                                     |
| `Remote` 5xx and 429                             | FAILED  | they answered: we cannot            |
| `Remote` other 4xx, `Refused`                    | OK      | they work; the request was wrong    |
| `CircuitOpen`, `BulkheadFull`, `Expired`, `Misuse` | IGNORED | our own side said no              |
| cancellation and other `BaseException`           | IGNORED | no verdict: nobody waited for it    |
| `NotSent`, `Unanswered`, everything else         | FAILED  | no connection, no answer, a fault   |
"""

from __future__ import annotations

import enum

from callcast.core.errors import BulkheadFull, CircuitOpen, Expired, Misuse, Refused, Remote


class Verdict(enum.Enum):
    """What one piece of work says about whoever did it."""

    OK = "ok"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    """A database or broker is away: the next one would fail as well."""
    IGNORED = "ignored"
    """It says nothing: it counts nowhere, and every permit goes back."""


# Looked up once, as the kinds of work are.
OK = Verdict.OK
FAILED = Verdict.FAILED
UNAVAILABLE = Verdict.UNAVAILABLE
IGNORED = Verdict.IGNORED

OWN_REJECTIONS = (CircuitOpen, BulkheadFull, Expired)
"""Raised on our own side: the callee was not contacted."""
OVERLOADED = frozenset({429, 503})
"""Statuses by which a callee says that it has too much to do."""

_NO_VERDICT = (*OWN_REJECTIONS, Misuse)


def verdict_of(error: BaseException) -> Verdict:
    """What an error of a call says about the callee."""
    if isinstance(error, Remote):
        return FAILED if error.status >= 500 or error.status == 429 else OK
    if isinstance(error, Refused):
        return OK
    if isinstance(error, _NO_VERDICT) or not isinstance(error, Exception):
        return IGNORED
    return FAILED
