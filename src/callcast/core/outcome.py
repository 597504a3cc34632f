"""What becomes of a delivery: four values, decided in one place and carried out in another."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from callcast.core.message import Message

NO_NOTES: Mapping[str, str] = MappingProxyType({})


class Done(Struct, frozen=True):
    """Handled: it never comes again, as soon as the broker has accepted the settle."""


class Later(Struct, frozen=True):
    """Again after `delay` seconds, never earlier; raises `Delivery.round` and resets `crashes`."""

    delay: float
    reason: str = ""
    notes: Mapping[str, str] = NO_NOTES
    """Headers that a broker which keeps a copy writes onto it (``callcast-first-failed-at``)."""


class Dead(Struct, frozen=True):
    """To the dead letters of its group, with the body's bytes untouched."""

    reason: str
    notes: Mapping[str, str] = NO_NOTES
    """The ``callcast-*`` headers of a dead letter: error type, message, stack, attempts, times."""
    cause: Exception | None = None
    """The error behind it, for layers outside; never leaves the process."""
    park: bool = False
    """Hold the key behind this dead letter until it is redriven or skipped (ability `Parks`)."""
    exhausted: bool = False
    """Dead for want of attempts: one more might have mended it, as not where it was refused."""


class Release(Struct, frozen=True):
    """Back untouched and not counted, available after `after` seconds."""

    after: float = 0.0
    reason: str = ""


Outcome: TypeAlias = Done | Later | Dead | Release

DONE = Done()

DEAD_REASON = "callcast-dead-reason"
"""The header of a dead letter that says why it is dead."""


def noted(message: Message, notes: Mapping[str, str]) -> Message:
    """The message with these notes among its headers."""
    return replace(message, headers={**message.headers, **notes}) if notes else message


def dead_letter(message: Message, verdict: Dead) -> Message:
    """What is kept of a dead message: the same bytes; notes and reason among its headers."""
    return noted(message, {**verdict.notes, DEAD_REASON: verdict.reason})
