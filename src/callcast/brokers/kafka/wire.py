"""Messages as Kafka records: the binary mapping of CloudEvents 1.0 onto headers, key and value.

| attribute                      | where                                                     |
|--------------------------------|-----------------------------------------------------------|
| ``id source type subject ...`` | headers ``ce_id ce_source ce_type ce_subject ...``, UTF-8 |
| ``datacontenttype``            | header ``content-type``                                   |
| ``traceparent tracestate``     | headers of these names, and ``ce_traceparent`` read too   |
| key                            | the record's key, and ``ce_partitionkey``                 |
| user's headers                 | headers of their names                                    |

A record that no callcast wrote lacks ``ce_id``: its id is its topic, partition and offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from msgspec import Struct

from callcast.core.message import NO_HEADERS, Message

Headers: TypeAlias = list[tuple[str, bytes | None]]

ROUND = "callcast-round"
"""How many times a record of a retry topic was `Later`."""
DUE = "callcast-due"
"""The wall-clock time before which a record of a retry topic is not handed out."""
NULL = "callcast-null"
"""A dead letter whose value was null: null would delete it from a compacted topic."""
DELIVER_AT = "callcast-deliver-at"
ERRORS = "__dlq.errors."
"""What Kafka's own dead letters call their headers."""

_OURS = (ROUND, DUE, NULL)
_VERSION = ("ce_specversion", b"1.0")
_JSON = ("content-type", b"application/json")
_TEXTS: tuple[tuple[str, str], ...] = (
    ("ce_subject", "subject"),
    ("ce_dataschema", "dataschema"),
    ("ce_correlationid", "correlation_id"),
    ("ce_causationid", "causation_id"),
    ("traceparent", "traceparent"),
    ("tracestate", "tracestate"),
)
_KNOWN = frozenset(
    {
        *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_partitionkey"),
        *("ce_expirytime", "content-type", "ce_traceparent", "ce_tracestate", DELIVER_AT),
        *_OURS,
        *(header for header, _ in _TEXTS),
    }
)


class Record(Struct, frozen=True, gc=False):
    """What Kafka stores, byte for byte: it is copied to other topics as it is."""

    topic: str
    partition: int
    offset: int
    time: float
    """Seconds since the epoch; 0 when the record has none."""
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def where(self) -> str:
        """``topic/partition/offset``."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def encode(message: Message) -> Headers:
    """The headers of a message; its value is its body, its key its key."""
    headers: Headers = [
        _VERSION,
        ("ce_id", message.id.encode()),
        ("ce_source", message.source.encode()),
        ("ce_type", message.type.encode()),
        _JSON
        if message.datacontenttype == "application/json"
        else ("content-type", message.datacontenttype.encode()),
    ]
    if message.time:
        headers.append(("ce_time", _timestamp(message.time)))
    if message.key is not None:
        headers.append(("ce_partitionkey", message.key.encode()))
    for name, field in _TEXTS:
        text: str | None = getattr(message, field)
        if text is not None:
            headers.append((name, text.encode()))
    if message.expires is not None:
        headers.append(("ce_expirytime", _timestamp(message.expires)))
    if message.deliver_at is not None:
        headers.append((DELIVER_AT, repr(message.deliver_at).encode()))
    if message.headers:
        headers.extend(
            (name, text.encode())
            for name, text in message.headers.items()
            if not name.startswith(ERRORS)
        )
    return headers


def decode(record: Record, topic: str) -> Message:
    """The message of a record; `topic` is its contract's, also where it lies in a retry topic."""
    found = dict(record.headers)
    name = _text(found.get("ce_id"))
    key = found.get("ce_partitionkey") or record.key
    deliver_at = found.get(DELIVER_AT)
    return Message(
        id=record.where if name is None else name,
        source=_text(found.get("ce_source")) or f"kafka:{topic}",
        type=_text(found.get("ce_type")) or topic,
        topic=topic,
        body=record.value or b"",
        key=None if key is None else _text(key),
        time=_seconds(found.get("ce_time")) or 0.0,
        subject=_text(found.get("ce_subject")),
        datacontenttype=_text(found.get("content-type")) or "application/json",
        dataschema=_text(found.get("ce_dataschema")),
        correlation_id=_text(found.get("ce_correlationid")),
        causation_id=_text(found.get("ce_causationid")),
        traceparent=_text(found.get("traceparent") or found.get("ce_traceparent")),
        tracestate=_text(found.get("tracestate") or found.get("ce_tracestate")),
        expires=_seconds(found.get("ce_expirytime")),
        deliver_at=_number(deliver_at),
        headers=_others(found),
    )


def put_off(record: Record, notes: Mapping[str, str], *, round: int, due: float) -> Headers:
    """The headers of a record's copy in a retry topic."""
    more = {**notes, ROUND: str(round), DUE: repr(due)}
    return with_headers(record.headers, more)


def buried(record: Record, notes: Mapping[str, str], *, group: str, attempts: int) -> Headers:
    """The headers of a record's copy among the dead letters: ours, and those of Kafka itself."""
    more = {
        **notes,
        f"{ERRORS}topic": record.topic,
        f"{ERRORS}partition": str(record.partition),
        f"{ERRORS}offset": str(record.offset),
        f"{ERRORS}group": group,
        f"{ERRORS}delivery.count": str(attempts),
    }
    if record.value is None:
        more[NULL] = "1"
    kept = [pair for pair in record.headers if pair[0] not in {ROUND, DUE}]
    return with_headers(kept, more)


def with_headers(headers: Headers, more: Mapping[str, str]) -> Headers:
    """These headers, with those of `more` instead of any of the same names."""
    return [
        *(pair for pair in headers if pair[0] not in more),
        *((name, text.encode("utf-8", "backslashreplace")) for name, text in more.items()),
    ]


def round_of(record: Record) -> int:
    """How many times it was `Later`."""
    return int(_number(_last(record.headers, ROUND)) or 0)


def due_of(record: Record) -> float:
    """The wall-clock time before which it is not handed out; 0 for at once."""
    return _number(_last(record.headers, DUE)) or 0.0


def identity(message: Message) -> bytes:
    """The key of a message among dead letters: an id alone is unique in its source only."""
    return f"{message.source}/{message.id}".encode()


def _last(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    return next((value for header, value in reversed(headers) if header == name), None)


def _others(found: Mapping[str, bytes | None]) -> Mapping[str, str]:
    others = {
        name: "" if value is None else value.decode("utf-8", "backslashreplace")
        for name, value in found.items()
        if name not in _KNOWN
    }
    return others or NO_HEADERS


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _number(value: bytes | None) -> float | None:
    """A number, or None for what is none: records of others must not stop a partition."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _timestamp(seconds: float) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z").encode()


def _seconds(value: bytes | None) -> float | None:
    """The seconds of an RFC 3339 time, or None for what is none."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value.decode()).timestamp()
    except ValueError:
        return None
