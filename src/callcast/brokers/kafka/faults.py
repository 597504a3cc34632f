"""Errors of the driver as one sentence: what was tried, why it failed, what to do.

A question that is not answered in time says nothing about why: the driver tells that beside it,
about its connections (`error_cb`). What it told lately is remembered here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka.codes import (
    ALL_BROKERS_DOWN,
    AUTHENTICATION,
    BAD_MESSAGE,
    RESOLVE,
    TIMED_OUT,
    TRANSPORT,
)
from callcast.brokers.kafka.options import Options
from callcast.core.errors import CallcastError, Misuse, NotPermitted, Unavailable
from callcast.ports.clock import Clock

FRESH = 35.0
"""Seconds for which a trouble explains a time-out: the driver repeats one every 30 s at least."""

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
_SILENT = {TIMED_OUT, TRANSPORT, ALL_BROKERS_DOWN, KafkaError.REQUEST_TIMED_OUT}
"""What a question ends in when the connections are in trouble."""
_WHERE = re.compile(r"^(?:\w+://)?(?P<where>[^/\s]+:\d+)/\w+: (?P<why>.*)$", re.DOTALL)
_STATE = re.compile(r" \(after \d+ms in state \w+\)$")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the driver told about one connection."""

    code: int
    where: str
    """``host:port``; empty where the driver did not say."""
    why: str


class Faults:
    """Remembers why the connections of one broker fail, and makes typed errors."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: tuple[float, Trouble] | None = None  # set by any thread, under the lock
        self._are_all_down = False
        self._was_there = False

    def note(self, error: KafkaError) -> None:
        """Take what the driver tells about its connections; from any thread."""
        if error.code() == ALL_BROKERS_DOWN:
            self._are_all_down = True  # what was told before says why
            return
        with self._lock:
            self._latest = self._clock.now(), trouble_of(error)

    def answered(self) -> None:
        """Forget what was wrong: the server answers."""
        self._was_there = True
        if self._latest is not None or self._are_all_down:
            with self._lock:
                self._latest, self._are_all_down = None, False

    @property
    def is_cut_off(self) -> bool:
        """Whether all servers were in trouble at once, and the driver told why."""
        return self._are_all_down and self._latest is not None

    def of(self, what: str, error: KafkaException) -> CallcastError:
        """The typed error for something that was tried."""
        cause: KafkaError = error.args[0]
        text = cause.str()
        servers = self._options.servers
        refusal = self.refusal(what, cause)
        if refusal is not None:
            return refusal
        if cause.code() in _REFUSED:
            return Misuse(f"Kafka at {servers} refuses to {what}: {text}")
        if cause.code() not in _SILENT:
            return Unavailable(f"Kafka at {servers} could not {what}: {text}")
        return self.connecting(f"could not {what}")

    def refusal(self, what: str, cause: KafkaError) -> NotPermitted | None:
        """The typed error for something that the user may not do; None for any other reason."""
        if cause.code() not in _FORBIDDEN:
            return None
        return NotPermitted(
            f"Kafka at {self._options.servers} did not let {self._options.who} {what}:"
            f" {cause.str()}; grant it with an ACL (kafka-acls --add), or use another user"
        )

    @property
    def why(self) -> str:
        """What is wrong with the connections, in a sentence; empty when nothing is known to be."""
        trouble = self._trouble()
        return "" if trouble is None else str(sentence_of(trouble, self._options, "to publish"))

    def connecting(self, what: str) -> CallcastError:
        """The typed error for something that got no answer."""
        trouble = self._trouble()
        if trouble is None:
            if self._was_there:
                return Unavailable(
                    f"Kafka at {self._options.servers} has not answered in time ({what}): it is"
                    " busy, or its leader or the group's coordinator is away; try again"
                )
            return _silence(self._options, what)
        return sentence_of(trouble, self._options, what)

    def _trouble(self) -> Trouble | None:
        """What was told last, unless that was long ago."""
        with self._lock:
            latest = self._latest
        return None if latest is None or self._clock.now() - latest[0] > FRESH else latest[1]


def trouble_of(error: KafkaError) -> Trouble:
    """Take apart ``host:port/bootstrap: why (after 0ms in state CONNECT)``."""
    text = error.str()
    found = _WHERE.match(text)
    where, why = (found["where"], found["why"]) if found else ("", text)
    return Trouble(error.code(), where, _STATE.sub("", why))


def sentence_of(trouble: Trouble, options: Options, what: str) -> CallcastError:
    """The error for a connection in that trouble; `what` is what was tried over it."""
    where = trouble.where or options.servers
    small = trouble.why.lower()
    for is_so, sentence in _SENTENCES:
        if is_so(trouble.code, small):
            return sentence(where, trouble.why, options)
    return Unavailable(
        f"no connection to Kafka at {where} ({what}): {trouble.why}: check the address, and the"
        " server's log"
    )


def _silence(options: Options, what: str) -> CallcastError:
    """The error for servers that take a connection and say nothing: no reason is told then."""
    wants = [
        *([] if options.is_tls else ["TLS (kafkas://)"]),
        *([] if options.user else ["user and password"]),
    ]
    more = f" and wants no {' and no '.join(wants)}" if wants else ""
    return Unavailable(
        f"{options.servers} did not answer in time ({what}): check host and port, and whether what"
        f" listens there is a Kafka{more}"
    )


def _no_host(where: str, why: str, options: Options) -> CallcastError:
    del options
    host, _, reason = where.rpartition(":")[0], "", why.rpartition(": ")[2]
    return Unavailable(f"there is no host {host!r} ({reason}): check the URL")


def _nobody(where: str, why: str, options: Options) -> CallcastError:
    del why, options
    return Unavailable(
        f"nobody listens at {where}: start Kafka there, or check host and port in the URL"
    )


def _no_tls(where: str, why: str, options: Options) -> CallcastError:
    del options
    return Unavailable(
        f"{where} does not speak TLS ({_brief(why)}): use kafka:// there, or the TLS port"
    )


def _wants_tls(where: str, why: str, options: Options) -> CallcastError:
    del why, options
    return Unavailable(
        f"{where} answers, but not to plain text: it wants TLS (kafkas://), or it is no Kafka"
    )


def _untrusted(where: str, why: str, options: Options) -> CallcastError:
    del options
    return NotPermitted(
        f"the certificate of {where} is not trusted ({_brief(why)}): give its signer with ca=FILE,"
        " and the host by the name that the certificate has"
    )


def _wants_certificate(where: str, why: str, options: Options) -> CallcastError:
    del options
    return NotPermitted(
        f"{where} did not take us without a certificate of ours, or not with this one"
        f" ({_brief(why)}): give one that it trusts with cert=FILE and key=FILE"
    )


def _no_kafka(where: str, why: str, options: Options) -> CallcastError:
    del why, options
    return Unavailable(f"{where} answers, but does not speak Kafka's protocol: check the port")


def _no_login(where: str, why: str, options: Options) -> CallcastError:
    del why
    return NotPermitted(
        f"Kafka at {where} asks for no password at this port: leave {options.who} out of the URL,"
        " or use the port with SASL"
    )


def _other_mechanism(where: str, why: str, options: Options) -> CallcastError:
    known = why.rpartition("supported mechanisms: ")[2]
    return NotPermitted(
        f"Kafka at {where} does not take the password of {options.who} by"
        f" {options.mechanism}, only by {known}: say so with mechanism="
    )


def _refused(where: str, why: str, options: Options) -> CallcastError:
    return NotPermitted(
        f"Kafka at {where} refused {options.who} ({_brief(why)}): check user and password, and"
        f" mechanism= ({options.mechanism} was used)"
    )


def _brief(why: str) -> str:
    """The part of a reason that says it, without what the driver says before and behind."""
    last = why.rpartition("routines::")[2] or why
    return last.removeprefix("SASL authentication error: ").partition(", verify that ")[0]


_PLAIN_THERE = ("plaintext broker", "wrong version number", "ssl connection closed by peer")

_SENTENCES: tuple[
    tuple[Callable[[int, str], bool], Callable[[str, str, Options], CallcastError]], ...
] = (
    (lambda code, _: code == RESOLVE, _no_host),
    (lambda _, why: "connection refused" in why, _nobody),
    (lambda _, why: any(word in why for word in _PLAIN_THERE), _no_tls),
    (lambda _, why: "certificate verify failed" in why or "self-signed" in why, _untrusted),
    (lambda _, why: "alert" in why and "certificate" in why, _wants_certificate),
    (lambda _, why: "ssl listener" in why, _wants_tls),
    (lambda code, _: code == BAD_MESSAGE, _no_kafka),
    (lambda _, why: "current sasl state" in why, _no_login),
    (lambda _, why: "supported mechanisms: " in why, _other_mechanism),
    (lambda code, why: code == AUTHENTICATION or "sasl authentication" in why, _refused),
)
"""What the driver's words mean, the first that fits."""
