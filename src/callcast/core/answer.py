"""The HTTP status that answers a call, by what was raised while it was served. Pure.

| raised while serving                          | status  |
|-----------------------------------------------|---------|
| nothing                                       | 200     |
| nothing, and the operation has no result      | 204     |
| the request does not decode                   | 400     |
| `Refused`                                     | its own |
| `Expired`: the deadline passed                | 504     |
| `NotSent` of a nested call (open, full)       | 503     |
| `Unanswered`, also of a nested call           | 504     |
| `Remote` of a nested call, whatever its own   | 502     |
| `CommitUnknown`, `Unavailable`, `Busy`        | 503     |
| anything else                                 | 500     |
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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

RAISED: Mapping[type[Exception], int] = MappingProxyType(
    {
        CommitUnknown: 503,
        Unavailable: 503,
        Busy: 503,
        WrongRequest: 400,
        Expired: 504,
        NotSent: 503,
        Unanswered: 504,
        Remote: 502,
    }
)
"""The first that fits counts: subclasses stand before their bases."""


def answered(error: Exception | None, *, is_void: bool) -> int:
    """The status; `is_void` of an operation without a result."""
    if error is None:
        return 204 if is_void else 200
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in RAISED.items() if isinstance(error, kind)), 500)
