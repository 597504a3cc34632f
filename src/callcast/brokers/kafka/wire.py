"""Messages as Kafka records: the binary mapping of CloudEvents 1.0 onto headers, key and value.

| attribute                      | where                                                     |
|--------------------------------|-----------------------------------------------------------|
| ``id source type subject ...`` | headers ``ce_id ce_source ce_type ce_subject ...``, UTF-8 |
| ``datacontenttype``            | header ``content-type``                                   |
| ``traceparent tracestate``     | headers of these names, and ``ce_traceparent`` read too   |
| key                            | the record's key, and ``ce_partitionkey``                 |
| user's headers                 | headers of their names                                    |

A record that no callcast wrote lacks ``ce_id``: its id is its topic, partition and offset, and its
copies say so. An event in structured mode (``application/cloudevents+json``) is read too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from callcast.brokers.kafka import origins
from callcast.brokers.kafka.origins import ERRORS
from callcast.core.message import NO_HEADERS, Message
from callcast.core.outcome import DEAD_REASON
from callcast.core.structured import is_structured, parse

Headers: TypeAlias = list[tuple[str, bytes | None]]
Found: TypeAlias = Mapping[str, bytes | None]
"""Headers by their names; the last one of a name counts."""

ROUND = "callcast-round"
"""How many times a record of a retry topic was `Later`."""
DUE = "callcast-due"
"""The wall-clock time before which a record of a retry topic is not handed out."""
NULL = "callcast-null"
"""A dead letter whose value was null: null would delete it from a compacted topic."""
KEY = "callcast-key"
"""The key of a message that died: dead letters are keyed by source and id."""
DELIVER_AT = "callcast-deliver-at"
ROUND_MAX = 999_999_999
DUE_MAX = 99_999_999_999.0
"""Somebody else's header of our name may say anything; `marks` has room for so much."""

_OURS = (ROUND, DUE, NULL, KEY)
_KEPT = 256
"""Seconds, and contracts, whose text is kept."""
_COMMON = frozenset(
    {
        *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_partitionkey"),
        *("ce_correlationid", "content-type", *_OURS),
    }
)
"""Headers of which messages have hardly any others."""
KNOWN = frozenset(
    {
        *_COMMON,
        *("ce_expirytime", "ce_traceparent", "ce_tracestate", DELIVER_AT),
        *("ce_subject", "ce_dataschema", "ce_causationid"),
        *("traceparent", "tracestate"),
    }
)
"""Headers that are no user's."""


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


class Arrival(Struct, frozen=True, gc=False):
    """A record, and what it says."""

    record: Record
    message: Message
    round: int
    """How many times it was `Later`."""
    due: float
    """The wall-clock time before which it is not handed out; 0 for at once."""


def encode(message: Message) -> Headers:
    """The headers of a message; its value is its body, its key its key."""
    identity = message.id.encode()
    headers: Headers = [
        *_repeated(message.source, message.type, message.datacontenttype),
        ("ce_id", identity),
    ]
    if message.time:
        headers.append(("ce_time", _timestamp(message.time)))
    if message.key is not None:
        headers.append(("ce_partitionkey", message.key.encode()))
    if message.correlation_id is not None:
        is_first = message.correlation_id == message.id
        text = identity if is_first else message.correlation_id.encode()
        headers.append(("ce_correlationid", text))
    _add_rare(message, headers)
    if message.headers:
        headers.extend(
            (name, text.encode())
            for name, text in message.headers.items()
            if name not in KNOWN and not name.startswith(origins.PREFIXES)
        )
    return headers


def decode(record: Record, topic: str, found: Found | None = None) -> Message:
    """The message of a record; `topic` is its contract's, also where it lies in a retry topic.

    `found` are its headers where they are at hand already.
    """
    if found is None:
        found = dict(record.headers)
    body = record.value or b""
    content_type = _text(found.get("content-type"))
    if is_structured(content_type) and (event := parse(body)) is not None:
        said = {f"ce_{name}": text.encode() for name, text in event.attributes.items()}
        found = {**found, **said}
        content_type, body = event.content_type, event.data
    key = found.get("ce_partitionkey") or found.get(KEY, record.key)
    message = Message(
        _text(found.get("ce_id")) or origins.place_of(found) or record.where,
        _text(found.get("ce_source")) or f"kafka:{topic}",
        _text(found.get("ce_type")) or topic,
        topic,
        body,
        key=None if key is None else _text(key),
        time=_seconds(found.get("ce_time")) or 0.0,
        datacontenttype=content_type or "application/json",
        correlation_id=_text(found.get("ce_correlationid")),
    )
    return message if found.keys() <= _COMMON else _with_rare(message, found)


def _with_rare(message: Message, found: Found) -> Message:
    """The message with all that most do not say."""
    return replace(
        message,
        subject=_text(found.get("ce_subject")),
        dataschema=_text(found.get("ce_dataschema")),
        causation_id=_text(found.get("ce_causationid")),
        traceparent=_text(found.get("traceparent") or found.get("ce_traceparent")),
        tracestate=_text(found.get("tracestate") or found.get("ce_tracestate")),
        expires=_seconds(found.get("ce_expirytime")),
        deliver_at=_number(found.get(DELIVER_AT)),
        headers=NO_HEADERS if found.keys() <= KNOWN else _others(found),
    )


def read(record: Record, topic: str) -> Arrival:
    """All that a record says."""
    found = dict(record.headers)
    return Arrival(record, decode(record, topic, found), round_of(found), due_of(found))


def put_off(record: Record, notes: Mapping[str, str], *, round: int, due: float) -> Headers:
    """The headers of a record's copy in a retry topic."""
    more = {**notes, **_identified(record), ROUND: str(round), DUE: repr(due)}
    return with_headers(record.headers, more)


def buried(record: Record, notes: Mapping[str, str], *, group: str, attempts: int) -> Headers:
    """The headers of a record's copy among the dead letters: ours, and those of Kafka itself."""
    more = {
        **notes,
        **_identified(record),
        f"{ERRORS}topic": record.topic,
        f"{ERRORS}partition": str(record.partition),
        f"{ERRORS}offset": str(record.offset),
        f"{ERRORS}group": group,
        f"{ERRORS}delivery.count": str(attempts),
        f"{ERRORS}message": notes.get(DEAD_REASON, ""),
    }
    if record.value is None:
        more[NULL] = "1"
    kept = [pair for pair in record.headers if pair[0] not in {ROUND, DUE, KEY}]
    return [*with_headers(kept, more), (KEY, record.key)]


def with_headers(headers: Headers, more: Mapping[str, str]) -> Headers:
    """These headers, with those of `more` instead of any of the same names."""
    return [
        *(pair for pair in headers if pair[0] not in more),
        *((name, text.encode("utf-8", "backslashreplace")) for name, text in more.items()),
    ]


def round_of(found: Found) -> int:
    """How many times a record with these headers was `Later`."""
    said = found.get(ROUND)
    return 0 if said is None else int(min(max(0.0, _number(said) or 0.0), ROUND_MAX))


def due_of(found: Found) -> float:
    """The wall-clock time before which such a record is not handed out; 0 for at once."""
    said = found.get(DUE)
    return 0.0 if said is None else min(max(0.0, _number(said) or 0.0), DUE_MAX)


def identity(message: Message) -> bytes:
    """The key of a message among dead letters: an id alone is unique in its source only."""
    return f"{message.source}/{message.id}".encode()


def _last(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    return next((value for header, value in reversed(headers) if header == name), None)


def _identified(record: Record) -> Mapping[str, str]:
    """What a copy says of its identity where the record does not: its place is the first one."""
    return {} if _last(record.headers, "ce_id") else {"ce_id": record.where}


def _others(found: Found) -> Mapping[str, str]:
    others = {
        name: origins.text_of(name, value) for name, value in found.items() if name not in KNOWN
    }
    return origins.told(others)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _number(value: bytes | None) -> float | None:
    """A number, or None for what is none: records of others must not stop a partition."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _timestamp(seconds: float) -> bytes:
    second, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return b"%s.%06dZ" % (_second(second), micros) if micros else b"%sZ" % _second(second)


def _add_rare(message: Message, headers: Headers) -> None:
    """Add what most messages do not say; written flat, as it is asked of each."""
    if message.causation_id is not None:
        headers.append(("ce_causationid", message.causation_id.encode()))
    if message.subject is not None:
        headers.append(("ce_subject", message.subject.encode()))
    if message.dataschema is not None:
        headers.append(("ce_dataschema", message.dataschema.encode()))
    if message.traceparent is not None:
        headers.append(("traceparent", message.traceparent.encode()))
    if message.tracestate is not None:
        headers.append(("tracestate", message.tracestate.encode()))
    if message.expires is not None:
        headers.append(("ce_expirytime", _timestamp(message.expires)))
    if message.deliver_at is not None:
        headers.append((DELIVER_AT, repr(message.deliver_at).encode()))


@lru_cache(_KEPT)
def _repeated(source: str, type_: str, content_type: str) -> Sequence[tuple[str, bytes]]:
    """What most messages of one contract say alike."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", type_.encode()),
        ("content-type", content_type.encode()),
    )


@lru_cache(_KEPT)
def _second(second: int) -> bytes:
    """A whole second without its zone: many messages of one are published."""
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00").encode()


def _seconds(value: bytes | None) -> float | None:
    """The seconds of an RFC 3339 time, or None for what is none; without a zone it is UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value.decode())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
