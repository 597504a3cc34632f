"""Findings: what is wrong with a system as it is, each by its code, and which are accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from callcast.advise.advice_file import REPAIR_TIME, Suppression
from callcast.advise.model import System
from callcast.advise.rules import SLO

Severity = Literal["error", "warning", "note"]


class Finding(Struct, frozen=True, order=True):
    """One thing to mend."""

    code: str
    edge: str
    """The interaction, path, or ring that it is about."""
    said: str
    """What is so, with its numbers."""
    remedy: str
    at: str = ""
    severity: Severity = "warning"


class Scope(Struct, frozen=True, kw_only=True):
    """What the checks look at."""

    system: System
    slo: float = SLO
    """Percent."""
    repair_time: float = REPAIR_TIME


class Sorted(Struct, frozen=True):
    """Findings after the team's suppressions."""

    open: Sequence[Finding]
    suppressed: Sequence[tuple[Finding, Suppression]]
    expired: Sequence[tuple[Finding, Suppression]]
    """Suppressed once, and open again: the date has passed."""


def without(found: Sequence[Finding], suppressions: Sequence[Suppression], today: str) -> Sorted:
    """Take out what is suppressed; `today` is an ISO date."""
    left: list[Finding] = []
    suppressed: list[tuple[Finding, Suppression]] = []
    expired: list[tuple[Finding, Suppression]] = []
    for each in found:
        by = next((one for one in suppressions if one.covers(each.code, each.edge)), None)
        if by is None:
            left.append(each)
        elif by.until is not None and by.until.isoformat() < today:
            left.append(each)
            expired.append((each, by))
        else:
            suppressed.append((each, by))
    return Sorted(left, suppressed, expired)
