"""Errors of the driver as one sentence: what was tried, why it failed, what to do."""

from __future__ import annotations

import re
import threading

from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka.codes import ALL_BROKERS_DOWN
from callcast.core.errors import Misuse, NotPermitted, Unavailable

_WRONG_LOGIN = (
    "the server refused the user name or the password; check both, and the SASL mechanism"
    " (?mechanism=)"
)
_HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("authentication failed", "sasl", "_authentication"), _WRONG_LOGIN),
    (
        ("certificate verify failed", "certificate"),
        "the server's certificate is not trusted; name its authority with ?ca=FILE",
    ),
    (
        ("ssl handshake failed", "ssl", "unsupported protocol", "wrong version number"),
        "TLS does not fit: kafkas:// speaks TLS and kafka:// does not; the port wants the other",
    ),
    (
        ("failed to resolve", "name or service not known", "nodename"),
        "no such host; check the name",
    ),
    (
        ("connection refused", "timed out", "all broker", "disconnected", "transport failure"),
        "no Kafka answers there; check host and port, and whether the server runs",
    ),
)

_ADDRESS = re.compile(r"\b(?:sasl_)?(?:ssl|plaintext)://")
"""What the driver writes before a host: how it speaks to it, not what went wrong."""


class Faults:
    """Remembers why the connections of one broker fail, since a time-out alone says nothing."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._latest = ""

    def note(self, error: KafkaError) -> None:
        """Take what the driver tells about its connections; from any thread."""
        if error.code() == ALL_BROKERS_DOWN and self._latest:
            return  # what was told before says why
        with self._lock:
            self._latest = error.str()

    def of(self, what: str, error: KafkaException) -> Unavailable | Misuse:
        """The typed error for something that was tried."""
        cause: KafkaError = error.args[0]
        text = cause.str()
        if cause.code() in _FORBIDDEN:
            return NotPermitted(
                f"kafka at {self._servers} does not permit this user to {what}: {text};"
                " grant the permission (ACL), or use another user"
            )
        if cause.code() in _REFUSED:
            return Misuse(f"kafka at {self._servers} refuses to {what}: {text}")
        # Codes below 0 are the driver's own, such as a time-out; what the server says is reason
        # enough, and its connections may have failed long ago.
        latest = self._latest if cause.code() < 0 else ""
        reason = f"{text}; {latest}" if latest and latest not in text else text
        hint = hint_of(f"{latest} {text}")
        kind = NotPermitted if hint == _WRONG_LOGIN else Unavailable
        return kind(f"could not {what} at kafka {self._servers}: {reason}: {hint}")


_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_REFUSED = {
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.TOPIC_EXCEPTION,
}


def hint_of(text: str) -> str:
    """What to do about a failure that the driver words like this."""
    small = _ADDRESS.sub("", text.lower())
    for words, hint in _HINTS:
        if any(word in small for word in words):
            return hint
    return "check the address, and the server's log"
