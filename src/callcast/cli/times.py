"""Times as an operator writes them. Pure: told what time it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time
from types import MappingProxyType

from callcast.cli.failure import Failure

UNITS: Mapping[str, float] = MappingProxyType({"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0})
FORMS = "15m (so long ago; also s, h, d), 10:00 (today), 2026-11-24T10:00 or ...T10:00:00+01:00"

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_TODAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


def time_of(text: str, now: float) -> float:
    """Seconds since the epoch; `now` is the wall clock. A `Failure` for what is no time.

    Without a zone it is meant in the time zone of this machine.
    """
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * UNITS[ago[2]]
    try:
        if _TODAY.fullmatch(text):
            local = datetime.fromtimestamp(now, UTC).astimezone()
            return datetime.combine(local.date(), time.fromisoformat(text.zfill(5))).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise Failure(f"{text!r} is no time", fix=FORMS) from error


def shown(when: float | None) -> str:
    """The time in this machine's zone, to the millisecond; empty when it is not known."""
    if when is None:
        return ""
    return datetime.fromtimestamp(when, UTC).astimezone().isoformat(timespec="milliseconds")
