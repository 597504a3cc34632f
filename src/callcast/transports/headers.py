"""The headers of a call: remaining time, ids, back-off. Pure; times are handed in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from callcast.core.errors import Misuse

TIMEOUT = "callcast-timeout"
ATTEMPT = "callcast-attempt"
CORRELATION = "X-Correlation-ID"
CAUSATION = "callcast-causation-id"
IDEMPOTENCY = "Idempotency-Key"
DO_NOT_RETRY = "callcast-do-not-retry"

ID_MAX = 256
"""Characters of a correlation id or idempotency key: enough for any scheme, small in a log."""
ATTEMPT_MAX = 1_000
_TIMEOUT_DIGITS_MAX = 8  # as in gRPC
_MILLISECONDS_MAX = 99_999_999
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NAME = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ID = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:/+=@~#|,;")


def format_timeout(left: float) -> str:
    """Remaining seconds as ``850m``: rounded down, at most 8 digits, never 0 (peers read none)."""
    milliseconds = int(left * 1000)
    if milliseconds < 1:
        return "1m"
    if milliseconds <= _MILLISECONDS_MAX:
        return f"{milliseconds}m"
    return f"{min(int(left), _MILLISECONDS_MAX)}S"


def parse_timeout(text: str) -> float | None:
    """``850m`` as 0.85 seconds; None for what is no timeout. 0 is "already expired"."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not _is_number(digits, _TIMEOUT_DIGITS_MAX):
        return None
    return int(digits) * _UNITS[unit]


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Seconds the caller still waits, by the shortest of the headers that say so."""
    said = [
        left
        for name in (TIMEOUT, "grpc-timeout")
        if (left := parse_timeout(headers.get(name, ""))) is not None
    ]
    envoy = headers.get("x-envoy-expected-rq-timeout-ms", "")
    if _is_number(envoy, 12) and int(envoy) > 0:  # Envoy's 0 means that there is no timeout
        said.append(int(envoy) / 1000)
    return min(said, default=None)


def parse_retry_after(text: str, wall: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; past is 0, garbage is None."""
    text = text.strip()
    if _is_number(text, 10):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": a time in UTC that says nothing of its place
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - wall)


def format_retry_after(delay: float) -> str:
    """Whole seconds, rounded up: nobody comes back too early."""
    return str(max(0, -int(-delay // 1)))


def attempt_of(text: str | None) -> int:
    """The caller's attempt; 1 when it says nothing sensible."""
    if text is None or not _is_number(text, 9):
        return 1
    return min(max(1, int(text)), ATTEMPT_MAX)


def format_key(key: str) -> str:
    """An id as the structured-field string that `Idempotency-Key` wants: quoted."""
    if not key or len(key) > ID_MAX or not (key.isascii() and key.isprintable()):
        raise Misuse(
            f"id {key[:ID_MAX]!r}: to be an idempotency key it needs 1 to {ID_MAX} printable"
            " ASCII characters"
        )
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_key(text: str) -> str | None:
    """The key of ``"8e03978e"``, also unquoted; None for what is no key."""
    key: str | None = text.strip()
    if text.startswith('"'):
        key = _unquoted(text)
    if not key or len(key) > ID_MAX or not (key.isascii() and key.isprintable()):
        return None
    return key


def correlation_of(headers: Mapping[str, str]) -> str | None:
    """The first correlation id that came in and is one: bounded, of safe characters."""
    for name in ("x-correlation-id", "x-request-id"):
        text = headers.get(name, "")
        if 0 < len(text) <= ID_MAX and _ID.issuperset(text):
            return text
    return None


def sendable(value: str) -> str:
    """An id as a header value: what no header may hold is percent-encoded."""
    if value.isascii() and value.isprintable():
        return value
    return quote(value, safe="")


def checked_headers(headers: Mapping[str, str], whose: str) -> Mapping[str, str]:
    """Return the headers when they can be sent as they are; else raise `Misuse`.

    The message never holds a value: it may be a secret.
    """
    for name, value in headers.items():
        if not name or not _NAME.issuperset(name):
            raise Misuse(f"{whose}: {name!r} is no header name")
        if name.lower().startswith("callcast-"):
            raise Misuse(f"{whose}: headers that begin with 'callcast-' are ours, not {name!r}")
        checked_value(value, f"{whose}, header {name!r}")
    return headers


def checked_value(value: str, what: str) -> str:
    """Return a header's value without control characters; else raise `Misuse` without it."""
    if value.isascii() and value.isprintable():  # nearly always
        return value
    if not all(" " <= char != "\x7f" or char == "\t" for char in value):
        raise Misuse(f"{what}: the value holds a line break or another control character")
    return value


def _is_number(text: str, digits_max: int) -> bool:
    return 0 < len(text) <= digits_max and text.isascii() and text.isdigit()


def _unquoted(text: str) -> str | None:
    """The inside of a structured-field string (RFC 9651); parameters after it are ignored."""
    inside: list[str] = []
    chars = iter(text[1:])
    for char in chars:
        if char == '"':
            return "".join(inside)
        if char == "\\":
            char = next(chars, "")  # noqa: PLW2901 - the escaped character stands for itself
            if char not in {'"', "\\"}:
                return None
        inside.append(char)
    return None
