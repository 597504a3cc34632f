"""How much of a deadline is worth sending anything, and the error where less is left."""

from __future__ import annotations

from callcast.core.errors import Expired
from callcast.core.work import Work

LEAST_LEFT = 0.001
"""Seconds: with less left nothing is sent. Peers read an encoded 0 as "no deadline"."""


def expired(work: Work, left: float) -> Expired:
    """The error for work that has no time left."""
    return Expired(
        f"{work.name!r}: the deadline leaves {left:.4f} s, and less than {LEAST_LEFT} s is too"
        " little to send anything; nothing was sent",
        id=work.id or None,
    )
