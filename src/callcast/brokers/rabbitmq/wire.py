"""Messages as AMQP 0-9-1 has them: CloudEvents 1.0 in headers, the data as the body.

| attribute                      | where                                                      |
|--------------------------------|------------------------------------------------------------|
| ``id source type subject ...`` | headers ``ce-id ce-source ce-type ce-subject ...``         |
| ``datacontenttype``            | property ``content_type``                                  |
| ``traceparent tracestate``     | headers of these names; ``ce-traceparent`` is read too     |
| key                            | header ``ce-partitionkey``; its hash in the routing key    |
| user's headers                 | headers of their names                                     |

Attributes are read as ``ce-x``, ``cloudEvents_x`` and ``cloudEvents:x``, since RabbitMQ turns the
properties of AMQP 1.0 clients into headers. What is no text is read as text. An event in structured
mode (``application/cloudevents+json``) is read too.

Whatever others write is read as something: a message that cannot be would come again for ever, and
hold up what was delivered beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from callcast.core.message import NO_HEADERS, Message
from callcast.core.structured import is_structured, parse

ROUND = "callcast-round"
"""How many times a message was `Later`."""
CRASHES = "callcast-crashes"
"""How many crashes are known beyond what the queue itself has counted."""
DUE = "callcast-due"
"""The wall-clock time before which a message is not handed out."""
DELIVER_AT = "callcast-deliver-at"
PUBLISHED = "callcast-published"
"""When it was published, in seconds; written where a log is kept."""
DELIVERY_COUNT = "x-delivery-count"

_PREFIXES = ("ce-", "cloudEvents_", "cloudEvents:")
_ATTRIBUTES = (
    *("specversion", "id", "source", "type", "subject", "time", "dataschema", "partitionkey"),
    *("correlationid", "causationid", "expirytime", "traceparent", "tracestate"),
)
_PLAIN = ("traceparent", "tracestate")
_OURS = (ROUND, CRASHES, DUE, DELIVER_AT, PUBLISHED, DELIVERY_COUNT)
_FIELDS = {
    **{f"{prefix}{name}": name for prefix in _PREFIXES for name in _ATTRIBUTES},
    **{name: name for name in (*_PLAIN, *_OURS)},
}
_NEEDED = frozenset({"ce-specversion", "ce-id", "ce-source", "ce-type"})
_USUAL = (
    *("ce-id", "ce-source", "ce-type", "ce-partitionkey", "ce-time"),
    *("ce-correlationid", "ce-causationid", "traceparent"),
)
"""What a message has in most cases, and nothing beside it."""
_NAMES_KEPT = 1_024
"""Tables of other names that are remembered; a program has a few dozen."""
_TEXTS = {str}
SECONDS_KEPT = 64
MICROS = 1_000_000
BROKERS = frozenset(
    {
        *("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"),
        *("x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"),
        *("x-acquired-count", "x-stream-offset"),
    }
)
"""Headers that the broker writes: no message's own."""


_DIGITS_MAX = 18
FIRST, LAST = -62_135_596_800.0, 253_402_300_799.0
"""The first and the last second that RFC 3339 can say: of the years 1 and 9999."""


class Raw(NamedTuple):
    """The broker's side of a message that others wrote."""

    exchange: str
    routing_key: str
    properties: object
    body: bytes
    """All of it, of an event in structured mode too."""


class Arrived(Struct, frozen=True, gc=False):
    """A message as it came, and what its headers say about its way so far."""

    message: Message
    round: int = 0
    crashes: int = 0
    """As the header says; the queue's own count comes on top."""
    due: float = 0.0
    count: int = 0
    """How often the queue has had it back."""
    published: float = 0.0
    raw: Raw | None = None
    """As it came, of what others wrote: its copies are to be like it."""
    is_uncounted: bool = False
    """It was back in its queue, which does not say how often: a classic one."""


class Frame(Struct, frozen=True, gc=False):
    """What is said about a message beside its headers."""

    topic: str
    content_type: str | None
    timestamp: float

    @classmethod
    def of(cls, topic: str, content_type: object, timestamp: object) -> Frame:
        """The same of what the driver has decoded, which may be no text or beyond all time."""
        if type(content_type) is str and type(timestamp) is int and 0 <= timestamp <= LAST:
            return cls(topic, content_type, timestamp)
        kind = None if content_type is None else text_of(content_type)
        if type(timestamp) is int and timestamp <= LAST:
            return cls(topic, kind, max(0, timestamp))
        return cls(topic, kind, _moment(_number(None if timestamp is None else str(timestamp))))


class Way(Struct, frozen=True, gc=False):
    """What a copy says about its way so far."""

    round: int = 0
    crashes: int = 0
    due: float = 0.0


FRESH = Way()


def headers_of(message: Message, way: Way = FRESH) -> dict[str, str | float | int]:
    """The header table of a message."""
    table: dict[str, str | float | int] = {
        "ce-specversion": "1.0",
        "ce-id": message.id,
        "ce-source": message.source,
        "ce-type": message.type,
    }
    if message.key is not None:
        table["ce-partitionkey"] = message.key
    if message.time:
        table["ce-time"] = stamp(message.time)
    if message.correlation_id is not None:
        table["ce-correlationid"] = message.correlation_id
    if message.causation_id is not None:
        table["ce-causationid"] = message.causation_id
    if message.traceparent is not None:
        table["traceparent"] = message.traceparent
    if _is_rich(message):
        _add_rare(table, message)
    if message.headers:
        own = message.headers.items()
        table.update((name, value) for name, value in own if name not in _FIELDS)
    add_way(table, way)
    return table


def read(headers: Mapping[str, object], body: bytes, frame: Frame) -> Arrived:
    """The message of these headers; without ``ce-id`` its id is empty: no callcast wrote it."""
    if is_structured(frame.content_type) and (event := parse(body)) is not None:
        named = {f"ce-{name}": text for name, text in event.attributes.items()}
        frame = replace(frame, content_type=event.content_type)
        return _read_any({**headers, **named}, event.data, frame)
    texts = headers.values()
    usual = _usual(tuple(headers)) if set(map(type, texts)) == _TEXTS else None
    return (
        _read_any(headers, body, frame)
        if usual is None
        else _read_usual(usual((*texts, None)), body, frame)
    )


def read_texts(
    names: tuple[str, ...], texts: Sequence[str], body: bytes, *, frame: Frame
) -> Arrived:
    """The same of headers that are all texts, which come apart from their names."""
    usual = None if is_structured(frame.content_type) else _usual(names)
    if usual is None:
        return read(dict(zip(names, texts, strict=True)), body, frame)
    return _read_usual(usual((*texts, None)), body, frame)


def _read_usual(usual: Sequence[Any], body: bytes, frame: Frame) -> Arrived:
    """The same for what most messages have, in that order, and nothing else: in half the time."""
    id_, source, type_, key, time, correlation, causation, trace = usual
    message = Message(
        id_,
        source,
        type_,
        frame.topic,
        body,
        key,
        None,
        seconds(time) or 0.0,
        None,
        frame.content_type or "application/json",
        None,
        correlation,
        causation,
        trace,
    )
    return Arrived(message, published=frame.timestamp)


@lru_cache(_NAMES_KEPT)
def _usual(names: tuple[str, ...]) -> Callable[[Sequence[object]], tuple[Any, ...]] | None:
    """What picks the headers that most messages have from texts of these names, and None behind.

    None where there are others beside them, or some are missing that each has.
    """
    if not _NEEDED <= set(names) <= {*_USUAL, "ce-specversion"}:
        return None
    return itemgetter(*(names.index(name) if name in names else -1 for name in _USUAL))


def _read_any(headers: Mapping[str, object], body: bytes, frame: Frame) -> Arrived:
    found: dict[str, str] = {}
    own: dict[str, str] = {}
    for name, value in headers.items():
        field = _FIELDS.get(name)
        if field is not None:
            found[field] = text_of(value)
        elif name not in BROKERS:
            own[text_of(name)] = text_of(value)
    get = found.get
    message = Message(
        get("id", ""),
        get("source", ""),
        get("type", frame.topic),
        frame.topic,
        body,
        get("partitionkey"),
        None,
        seconds(get("time")) or 0.0,
        get("subject"),
        frame.content_type or "application/json",
        get("dataschema"),
        get("correlationid"),
        get("causationid"),
        get("traceparent"),
        get("tracestate"),
        seconds(get("expirytime")),
        _number(get(DELIVER_AT)) or None,
        own or NO_HEADERS,
    )
    return Arrived(
        message,
        _count(get(ROUND)),
        _count(get(CRASHES)),
        max(_number(get(DUE)), message.deliver_at or 0.0),
        _count(get(DELIVERY_COUNT)),
        _moment(_number(get(PUBLISHED))) or frame.timestamp,
    )


def stamp(seconds_: float) -> str:
    """Wall-clock seconds as CloudEvents has them (RFC 3339, UTC, microseconds).

    What is beyond the year 9999 is its end: nobody waits for it.
    """
    seconds_ = min(max(seconds_, FIRST), LAST)
    whole = math.floor(seconds_)
    micros = round((seconds_ - whole) * 1e6)
    if micros == MICROS:
        whole, micros = whole + 1, 0
    return f"{_second(whole)}.{micros:06d}Z" if micros else f"{_second(whole)}Z"


def seconds(text: str | None) -> float | None:
    """The wall-clock seconds of an RFC 3339 text; None for no text and for one that is none.

    A long number is one of milliseconds: so AMQP 1.0 has times.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        # A foreign producer's: the message counts, its time does not.
        return _moment(int(text) / 1_000) or None if _is_number(text) else None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@lru_cache(SECONDS_KEPT)
def _second(whole: int) -> str:
    """Thousands of messages have the same second: it is written out once."""
    return datetime.fromtimestamp(whole, UTC).isoformat().removesuffix("+00:00")


def _is_rich(message: Message) -> bool:
    """Whether it has any of the attributes that most messages lack."""
    return not (
        message.subject is None
        and message.dataschema is None
        and message.tracestate is None
        and message.expires is None
        and message.deliver_at is None
    )


def _add_rare(table: dict[str, str | float | int], message: Message) -> None:
    texts = (
        ("ce-subject", message.subject),
        ("ce-dataschema", message.dataschema),
        ("tracestate", message.tracestate),
    )
    table.update((name, value) for name, value in texts if value is not None)
    if message.expires is not None:
        table["ce-expirytime"] = stamp(message.expires)
    if message.deliver_at is not None:
        table[DELIVER_AT] = repr(message.deliver_at)


def add_way(table: dict[str, Any], way: Way) -> None:
    """Write down what is said about a message's way."""
    if way is FRESH:
        return
    if way.round:
        table[ROUND] = way.round
    if way.crashes:
        table[CRASHES] = way.crashes
    if way.due:
        table[DUE] = repr(way.due)


def text_of(value: object) -> str:
    """What is said, as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, datetime):
        return stamp(value.replace(tzinfo=value.tzinfo or UTC).timestamp())
    return str(value)


def _number(text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        return 0.0  # somebody else's header of our name says nothing
    return 0.0 if math.isnan(value) else value


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX


def _count(text: str | None) -> int:
    value = _number(text)
    return int(value) if 0 <= value < math.inf else 0


def _moment(seconds_: float) -> float:
    """The same, or 0 for a time that cannot be: milliseconds, most often."""
    return seconds_ if 0 <= seconds_ <= LAST else 0.0
