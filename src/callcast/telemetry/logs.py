"""Log lines: correlation and causation ids in every record, and facts as events with fields.

Nothing is installed at import: `callcast run` calls `install`; a program with a logging set-up of
its own adds a `Correlated` filter to its handlers instead. Payloads are never logged, and what is
logged of an error is cut to a size and cleared of passwords in URLs.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
from opentelemetry import trace

from callcast.core.context import AMBIENT
from callcast.ports.observer import (
    CircuitChanged,
    ConsumerRebuilt,
    DuplicateSeen,
    Fact,
    KillSwitch,
    Lagged,
    LeaseLost,
    LoopBlocked,
    OutboxAged,
    Rejected,
    Retried,
    Settled,
)
from callcast.telemetry import names

LOGGER = "callcast"
DRIVERS = ("pika",)
"""Loggers of drivers. Of one failure they write many lines; its adapter says it in a sentence."""
TEXT_MAX = 500
"""Characters that are kept of a text in a fact; a stack or a body has no place in a log line."""

_EVENTS: Mapping[type[Fact], tuple[str, int]] = MappingProxyType(
    {
        Retried: ("retry decided", logging.DEBUG),
        CircuitChanged: ("circuit changed", logging.WARNING),
        Rejected: ("call rejected", logging.DEBUG),
        Settled: ("message settled", logging.DEBUG),
        LeaseLost: ("lease lost", logging.WARNING),
        DuplicateSeen: ("duplicate seen", logging.INFO),
        LoopBlocked: ("event loop blocked", logging.WARNING),
        KillSwitch: ("kill switch changed", logging.WARNING),
        ConsumerRebuilt: ("consumer rebuilt", logging.WARNING),
        OutboxAged: ("outbox aged", logging.WARNING),
        Lagged: ("lag measured", logging.DEBUG),
    }
)
_LOUDER: Mapping[str, int] = MappingProxyType(
    {
        "later": logging.INFO,  # Settled
        "dead": logging.WARNING,
        "exhausted": logging.INFO,  # Retried
        "budget_denied": logging.WARNING,
    }
)

# Up to "@" in the authority of a URL; no part of it can be matched in two ways.
_PASSWORD = re.compile(r"(?<=://)[^\s/@]*@")


class Correlated(logging.Filter):
    """Gives each record ``correlation_id``, ``causation_id``, ``message_id`` and trace ids.

    Add it to handlers. Ids that there are none of are ``""``, so that a format may name them; those
    that a record was given by ``extra=`` stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; every record passes."""
        for name, value in correlation().items():
            if not getattr(record, name, ""):
                setattr(record, name, value)
        return True


class LogFormatter(logging.Formatter):
    """One line per record for people: time, level, logger, message, its fields, its ids."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line, without the traceback that the base class appends."""
        line = super().formatMessage(record)
        correlated = str(getattr(record, names.LOG_CORRELATION, ""))
        return f"{line} correlation_id={correlated}" if correlated else line


class JsonFormatter(logging.Formatter):
    """One JSON object per record for programs, the fields of an event among its members."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        members: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in correlation():
            members[name] = getattr(record, name, "")
        members |= fields_of(record)
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, default=str)


class FactLog:
    """Writes facts to the logger ``callcast``: one line per fact, at a level that fits it."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(LOGGER)

    @property
    def is_detailed(self) -> bool:
        """Whether the facts of the lowest level are written, too."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def write(self, fact: Fact) -> None:
        """One event with fields; costs next to nothing when nobody wants its level."""
        known = _EVENTS.get(type(fact))
        event, level = (type(fact).__name__, logging.INFO) if known is None else known
        if isinstance(fact, (Settled, Retried)):
            level = _LOUDER.get(fact.outcome, level)
        if self._logger.isEnabledFor(level):
            log_event(event, msgspec.structs.asdict(fact), level=level)


def log_event(event: str, fields: Mapping[str, object], *, level: int = logging.INFO) -> None:
    """Write an event: readable as ``lease lost source='a/b' count=3``, its fields kept apart."""
    cleared = {
        name: redacted(value) if isinstance(value, str) else value
        for name, value in fields.items()
        if value not in ("", None, ())
    }
    text = " ".join(f"{name}={value!r}" for name, value in cleared.items())
    logging.getLogger(LOGGER).log(
        level, "%s %s", event, text, extra={names.LOG_FIELDS: {"event": event, **cleared}}
    )


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields of an event's record; empty for any other record."""
    fields: Mapping[str, object] = getattr(record, names.LOG_FIELDS, {})
    return fields


def without_passwords(text: str) -> str:
    """The text without user names and passwords in URLs."""
    return _PASSWORD.sub("***@", text)


def redacted(text: str) -> str:
    """The text without user names and passwords in URLs, and not longer than `TEXT_MAX`."""
    # Cleared before it is cut: the cut could take away the "@" that a password is known by.
    cleared = without_passwords(text)
    return cleared if len(cleared) <= TEXT_MAX else f"{cleared[:TEXT_MAX]}..."


def correlation() -> Mapping[str, str]:
    """The ids of the work in hand."""
    context = AMBIENT.get()
    span = trace.get_current_span().get_span_context()
    return {
        names.LOG_CORRELATION: "" if context is None else context.correlation_id,
        names.LOG_CAUSATION: "" if context is None else context.causation_id or "",
        names.LOG_MESSAGE_ID: "" if context is None else context.message_id,
        names.LOG_TRACE: trace.format_trace_id(span.trace_id) if span.is_valid else "",
        names.LOG_SPAN: trace.format_span_id(span.span_id) if span.is_valid else "",
    }


def install(
    *, level: int = logging.INFO, as_json: bool = False, drivers: bool = False
) -> Callable[[], None]:
    """Send all records to stderr, each with its ids; call what is returned to undo it.

    Called by `callcast run`, never at import. Handlers that were there stay, and get the ids too.
    Without `drivers` those of `DRIVERS` are left out, unless the program has set their level.
    """
    root = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else LogFormatter())
    correlated = Correlated()
    before = root.level
    present = list(root.handlers)
    root.addHandler(handler)
    root.setLevel(level)
    for each in root.handlers:
        each.addFilter(correlated)
    quiet = [] if drivers else [one for one in map(logging.getLogger, DRIVERS) if not one.level]
    for one in quiet:
        one.setLevel(logging.CRITICAL)

    def undo() -> None:
        for one in quiet:
            one.setLevel(logging.NOTSET)
        root.removeHandler(handler)
        root.setLevel(before)
        for each in present:
            each.removeFilter(correlated)

    return undo
