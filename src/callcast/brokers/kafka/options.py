"""What a URL, its query and the environment say about a Kafka cluster, as the driver's settings.

``kafka://user:password@host:9092,host2:9092?partitions=16``; ``kafkas://`` speaks TLS.

| option        | default      | what                                                           |
|---------------|--------------|----------------------------------------------------------------|
| `partitions`  | 8            | of topics that `ensure` makes                                  |
| `replication` | the server's | copies of topics that `ensure` makes                           |
| `retain`      | 604800       | seconds for which events are kept                              |
| `session`     | 10           | seconds after which a silent member counts as dead             |
| `instance`    | none         | static membership: a restart within `session` moves nothing    |
| `expired`     | error        | or ``earliest``: a position whose messages are gone            |
| `mechanism`   | PLAIN        | SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512                      |
| `ca`          | the system's | file with the authority of the server's certificate            |
| `cert`, `key` | none         | files with the client's certificate and key                    |
| `compression` | none         | none, gzip, snappy, lz4, zstd                                  |
| `insecure`    | false        | true: SASL PLAIN also where everybody can read it              |

User and password may come from ``CALLCAST_KAFKA_USER`` and ``CALLCAST_KAFKA_PASSWORD`` instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from callcast.core.errors import Misuse

BODY_MAX = 1_048_576
RECORD_MAX = BODY_MAX + 131_072
"""Bytes of a record: a body, and its headers beside it."""
PUBLISH_WAIT = 4.0
"""Seconds for a record to be stored; below the default deadline of a publish, 5 s."""

_KNOWN = (
    "partitions", "replication", "retain", "session", "instance", "expired",
    "mechanism", "ca", "cert", "key", "compression", "insecure",
)  # fmt: skip
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")
_QUIET = logging.Logger("callcast.kafka.driver", logging.CRITICAL + 1)  # noqa: LOG001 - of no tree
"""Logs nothing: the driver itself would print to stderr what is fatal to one of its connections."""
_FORM = "kafka://user:password@host:9092"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a broker is reached, and what it makes. Its `repr` shows no secrets."""

    servers: str
    user: str = ""
    mechanism: str = ""
    partitions: int = 8
    replication: int = -1
    retain: float = 604_800.0
    session: float = 10.0
    instance: str = ""
    expired: str = "error"
    compression: str = "none"
    security: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def who(self) -> str:
        """The user, for sentences."""
        return f"user {self.user!r}" if self.user else "somebody without a user name"

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security.get("security.protocol", "").endswith("SSL")

    @property
    def client(self) -> dict[str, object]:
        """Settings of every connection."""
        return {
            "bootstrap.servers": self.servers,
            "client.id": "callcast",
            "log_level": 0,  # what goes wrong is raised as a typed error
            "logger": _QUIET,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "socket.connection.setup.timeout.ms": 5_000,
            "socket.nagle.disable": True,
            **self.security,
        }

    @property
    def producer(self) -> dict[str, object]:
        """Settings of the producer: nothing is lost, repeated or out of order."""
        return {
            **self.client,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # as Java's default has it
            "message.timeout.ms": int(PUBLISH_WAIT * 1_000),
            "message.max.bytes": RECORD_MAX,
            "linger.ms": 2,  # at most: the sender flushes
            "compression.type": self.compression,
            "queue.buffering.max.messages": 100_000,
        }

    @property
    def reader(self) -> dict[str, object]:
        """Settings of a consumer that takes part in no group."""
        return {
            **self.client,
            "group.id": "callcast.reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "fetch.message.max.bytes": RECORD_MAX,
            "queued.max.messages.kbytes": 2_048,  # more is memory of who is behind, and no speed
            # A question that waits at the server for records holds up the next, about others.
            "fetch.wait.max.ms": 10,
        }

    @property
    def member(self) -> dict[str, object]:
        """Settings of a group's member."""
        settings: dict[str, object] = {
            **self.reader,
            "auto.offset.reset": self.expired,
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(self.session * 1_000),
            "heartbeat.interval.ms": max(100, min(1_000, int(self.session * 1_000 / 12))),
            "topic.metadata.refresh.interval.ms": 30_000,
            # A commit waits for its answer in the thread that reads.
            "socket.timeout.ms": 10_000,
            "fetch.error.backoff.ms": 100,
            # With all that it may read ahead at hand, how soon it looks for room again.
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 100,
        }
        if self.instance:
            settings["group.instance.id"] = self.instance
        return settings


def options_of(url: str, environment: Mapping[str, str]) -> Options:
    """The options of a URL; raises `Misuse` for one that is none, and never says its password."""
    parts = _split(url)
    said = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in said:
        if name not in _KNOWN:
            raise Misuse(
                f"broker option {name!r} is unknown to kafka://; known: {', '.join(_KNOWN)}"
            )
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    user = unquote(user) or environment.get("CALLCAST_KAFKA_USER", "")
    password = unquote(password) or environment.get("CALLCAST_KAFKA_PASSWORD", "")
    servers = ",".join(map(_with_port, hosts.split(",")))
    security = _security(parts.scheme, (user, password), said)
    return Options(
        servers=servers,
        user=user,
        mechanism=security.get("sasl.mechanism", ""),
        partitions=_count(said, "partitions", 8),
        replication=_count(said, "replication", -1),
        retain=_seconds(said, "retain", 604_800.0),
        session=_seconds(said, "session", 10.0),
        instance=said.get("instance", ""),
        expired=_one_of(said, "expired", ("error", "earliest")),
        compression=_one_of(said, "compression", _COMPRESSIONS),
        security=security,
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Misuse(f"the broker URL is none: {error}; write {_FORM}") from error
    # Said without what stands there: it may be the end of a password.
    is_cut = "@" not in parts.netloc and "@" in parts.query.partition("=")[0]
    if parts.path.strip("/") or parts.fragment or is_cut:
        raise Misuse(
            f"the broker URL has something behind its host that Kafka has no use for: write"
            f" {_FORM}, with '/', '?', '#' and '@' in a password as %2F, %3F, %23 and %40"
        )
    return parts


def _security(scheme: str, login: tuple[str, str], said: Mapping[str, str]) -> dict[str, str]:
    user, password = login
    is_tls = scheme == "kafkas"
    settings: dict[str, str] = _files(said, is_tls=is_tls)
    if user:
        settings |= {
            "sasl.mechanism": _mechanism(said, is_tls=is_tls),
            "sasl.username": user,
            "sasl.password": password,
        }
    elif "mechanism" in said:
        raise Misuse(
            f"broker option mechanism={said['mechanism']!r} without a user: write {_FORM}, or set"
            " CALLCAST_KAFKA_USER and CALLCAST_KAFKA_PASSWORD"
        )
    if is_tls or user:
        kind = "SASL_" if user else ""
        settings["security.protocol"] = f"{kind}{'SSL' if is_tls else 'PLAINTEXT'}"
    return settings


def _mechanism(said: Mapping[str, str], *, is_tls: bool) -> str:
    mechanism = _one_of(said, "mechanism", _MECHANISMS)
    if mechanism == "PLAIN" and not is_tls and said.get("insecure") != "true":
        raise Misuse(
            "SASL PLAIN without TLS shows the password to everybody on the way: use"
            " kafkas://, or ?mechanism=SCRAM-SHA-512, or ?insecure=true on a network of yours"
        )
    return mechanism


def _files(said: Mapping[str, str], *, is_tls: bool) -> dict[str, str]:
    files = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}
    named = [option for option in files if option in said]
    if named and not is_tls:
        raise Misuse(
            f"broker option {named[0]}= is about TLS, which kafka:// does not speak: write kafkas://"
        )
    if ("cert" in said) is not ("key" in said):
        raise Misuse("broker options cert= and key= name the two halves of one thing: give both")
    for option in named:
        if not Path(said[option]).is_file():
            raise Misuse(f"broker option {option}={said[option]!r}: there is no such file")
    return {files[option]: said[option] for option in named}


def _with_port(host: str) -> str:
    """A host with its port; 9092 where it has none."""
    end = host.rpartition("]")[2]
    name, colon, port = end.partition(":")
    is_named = bool(name) or end != host
    if not is_named or (colon and not port.isdecimal()):
        raise Misuse(f"the broker URL names a host {host!r}: write kafka://host:9092,host2:9092")
    return host if colon else f"{host}:9092"


def _one_of(said: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    """What an option says, whatever its case; by default the first."""
    text = said.get(name, known[0])
    for word in known:
        if text.lower() == word.lower():
            return word
    raise Misuse(f"broker option {name}={text!r}: use {', '.join(known)}")


def _count(said: Mapping[str, str], name: str, default: int) -> int:
    text = said.get(name)
    if text is None or text == str(default):
        return default
    if not text.isdecimal() or int(text) < 1:
        raise Misuse(f"broker option {name}={text!r}: a whole number from 1 on is wanted")
    return int(text)


def _seconds(said: Mapping[str, str], name: str, default: float) -> float:
    text = said.get(name)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise Misuse(f"broker option {name}={text!r}: a number of seconds above 0 is wanted")
    return seconds
