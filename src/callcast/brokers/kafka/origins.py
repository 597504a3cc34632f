"""Where a dead letter of others died, and why, in our words.

| ours                     | share groups     | Kafka Streams | Spring Kafka              |
|--------------------------|------------------|---------------|---------------------------|
| ``callcast-source``      | `topic`          | `topic`       | `original-topic`          |
| ``callcast-group``       | `group`          |               | `original-consumer-group` |
| ``callcast-attempts``    | `delivery.count` |               |                           |
| ``callcast-dead-reason`` | `message`        | `message`     | `exception-message`       |
| ``callcast-error-type``  |                  | `exception`   | `exception-fqcn`          |

Each behind its prefix. Spring writes numbers as big-endian binaries; everything else is text.
"""

from __future__ import annotations

from collections.abc import Mapping

from callcast.core.outcome import DEAD_REASON

ERRORS = "__dlq.errors."
"""What Kafka's own dead letters call their headers."""
STREAMS = "__streams.errors."
SPRING = "kafka_dlt-"
PREFIXES = (ERRORS, STREAMS, SPRING)

_NUMBERS = {
    f"{SPRING}original-partition": 4,
    f"{SPRING}original-offset": 8,
    f"{SPRING}original-timestamp": 8,
}
"""Their bytes."""
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("callcast-source", (f"{ERRORS}topic", f"{STREAMS}topic", f"{SPRING}original-topic")),
    ("callcast-group", (f"{ERRORS}group", f"{SPRING}original-consumer-group")),
    ("callcast-attempts", (f"{ERRORS}delivery.count",)),
    (DEAD_REASON, (f"{ERRORS}message", f"{STREAMS}message", f"{SPRING}exception-message")),
    # What Spring calls the exception is its own wrapper; the cause is the user's.
    (
        "callcast-error-type",
        (f"{STREAMS}exception", f"{SPRING}exception-cause-fqcn", f"{SPRING}exception-fqcn"),
    ),
    ("callcast-error-message", (f"{STREAMS}message", f"{SPRING}exception-message")),
    ("callcast-error-stack", (f"{STREAMS}stacktrace", f"{SPRING}exception-stacktrace")),
)


def text_of(name: str, value: bytes | None) -> str:
    """The value of a header as text."""
    if value is None:
        return ""
    if len(value) == _NUMBERS.get(name):
        return str(int.from_bytes(value, "big", signed=True))
    return value.decode("utf-8", "backslashreplace")


def place_of(headers: Mapping[str, bytes | None]) -> str:
    """Where a dead letter of others lay first: ``topic/partition/offset``, or empty."""
    for prefix in (ERRORS, STREAMS, f"{SPRING}original-"):
        names = [f"{prefix}{part}" for part in ("topic", "partition", "offset")]
        if all(headers.get(name) for name in names):
            return "/".join(text_of(name, headers[name]) for name in names)
    return ""


def told(headers: Mapping[str, str]) -> Mapping[str, str]:
    """These headers, and what those of others say in our words, unless ours say it themselves."""
    if not any(name.startswith(PREFIXES) for name in headers):
        return headers
    found: dict[str, str] = {}
    for ours, theirs in _WORDS:
        said = next((headers[name] for name in theirs if name in headers), None)
        if said is not None:
            found[ours] = said
    return {**found, **headers}
