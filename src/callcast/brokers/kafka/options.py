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
| `insecure`    | false        | ``true`` lets a password go over a connection without TLS      |

User and password may come from ``CALLCAST_KAFKA_USER`` and ``CALLCAST_KAFKA_PASSWORD`` instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

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
_FILES = {
    "ca": "ssl.ca.location",
    "cert": "ssl.certificate.location",
    "key": "ssl.key.location",
}
PORT_MAX = 65_535


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
    def client(self) -> dict[str, str | int | float]:
        """Settings of every connection."""
        return {
            "bootstrap.servers": self.servers,
            "client.id": "callcast",
            "log_level": 2,  # what goes wrong is raised as a typed error; the driver need not print
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "socket.connection.setup.timeout.ms": 5_000,
            "socket.nagle.disable": True,
            **self.security,
        }

    @property
    def producer(self) -> dict[str, str | int | float]:
        """Settings of the producer: nothing is lost, repeated or out of order."""
        return {
            **self.client,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # as Java's default has it
            "message.timeout.ms": int(PUBLISH_WAIT * 1_000),
            "message.max.bytes": RECORD_MAX,
            "linger.ms": 0,
            "compression.type": self.compression,
            "queue.buffering.max.messages": 100_000,
        }

    @property
    def reader(self) -> dict[str, str | int | float]:
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
            "queued.max.messages.kbytes": 16_384,
            # A question that waits at the server for records holds up the next, about others.
            "fetch.wait.max.ms": 10,
        }

    @property
    def member(self) -> dict[str, str | int | float]:
        """Settings of a group's member."""
        settings: dict[str, str | int | float] = {
            **self.reader,
            "auto.offset.reset": self.expired,
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(self.session * 1_000),
            "heartbeat.interval.ms": max(100, min(1_000, int(self.session * 1_000 / 12))),
            "topic.metadata.refresh.interval.ms": 30_000,
            "fetch.error.backoff.ms": 100,
            "fetch.wait.max.ms": 100,
        }
        if self.instance:
            settings["group.instance.id"] = self.instance
        return settings


def options_of(url: str, environment: Mapping[str, str]) -> Options:
    """The options of a URL; raises `Misuse` for one that is none."""
    parts = urlsplit(url)
    said = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in said:
        if name not in _KNOWN:
            raise Misuse(
                f"broker option {name!r} is unknown to kafka://; known: {', '.join(_KNOWN)}"
            )
    if parts.path.strip("/") or parts.fragment:
        raise Misuse(
            f"the broker URL goes on with {parts.path or parts.fragment!r} behind its hosts, and"
            " Kafka knows nothing of the kind: write kafka://localhost:9092"
        )
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    user = unquote(user) or environment.get("CALLCAST_KAFKA_USER", "")
    password = unquote(password) or environment.get("CALLCAST_KAFKA_PASSWORD", "")
    return Options(
        servers=_servers(hosts),
        user=user,
        mechanism=_one_of(said, "mechanism", _MECHANISMS) if user else "",
        partitions=int(_number(said, "partitions", 8, least=1)),
        replication=int(_number(said, "replication", -1, least=1)),
        retain=_number(said, "retain", 604_800.0, least=1),
        session=_number(said, "session", 10.0, least=1),
        instance=said.get("instance", ""),
        expired=_one_of(said, "expired", ("error", "earliest")),
        compression=_one_of(said, "compression", _COMPRESSIONS),
        security=_security(parts.scheme, (user, password), said),
    )


def _security(scheme: str, login: tuple[str, str], said: Mapping[str, str]) -> dict[str, str]:
    user, password = login
    is_tls = scheme == "kafkas"
    settings: dict[str, str] = {}
    if user:
        mechanism = _one_of(said, "mechanism", _MECHANISMS)
        if mechanism == "PLAIN" and not is_tls and said.get("insecure") != "true":
            raise Misuse(
                "SASL PLAIN without TLS shows the password to everybody on the way: use"
                " kafkas://, or ?mechanism=SCRAM-SHA-512, or ?insecure=true on a network of yours"
            )
        settings |= {
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
        }
    if is_tls or user:
        kind = "SASL_" if user else ""
        settings["security.protocol"] = f"{kind}{'SSL' if is_tls else 'PLAINTEXT'}"
    for option, name in _FILES.items():
        if option in said:
            settings[name] = _file(option, said[option], is_tls=is_tls)
    return settings


def _file(option: str, path: str, *, is_tls: bool) -> str:
    if not is_tls:
        raise Misuse(f"broker option {option}={path!r} is for TLS: write kafkas:// before the host")
    if not Path(path).is_file():
        raise Misuse(f"broker option {option}={path!r}: there is no such file")
    return path


def _servers(hosts: str) -> str:
    """Each host with its port; 9092 where it has none."""
    servers: list[str] = []
    for host in hosts.split(","):
        name, port = host, "9092"
        if ":" in host.rpartition("]")[2]:
            name, _, port = host.rpartition(":")
        if not name or not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
            raise Misuse(
                f"the broker URL names {host!r} where a host is wanted: write"
                " kafka://localhost:9092, or several with commas"
            )
        servers.append(f"{name}:{port}")
    return ",".join(servers)


def _number(said: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = said.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError as error:
        raise Misuse(f"broker option {name}={text!r}: a number is wanted") from error
    if not least <= number < math.inf:
        raise Misuse(f"broker option {name}={text!r}: a number of at least {least} is wanted")
    return number


def _one_of(said: Mapping[str, str], name: str, words: Sequence[str]) -> str:
    """What was said, whatever its case; the first of the words where nothing was."""
    text = said.get(name, words[0])
    for word in words:
        if text.lower() == word.lower():
            return word
    raise Misuse(f"broker option {name}={text!r}: use one of {', '.join(words)}")
