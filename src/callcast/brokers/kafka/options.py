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

User and password may come from ``CALLCAST_KAFKA_USER`` and ``CALLCAST_KAFKA_PASSWORD`` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a broker is reached, and what it makes. Its `repr` shows no secrets."""

    servers: str
    partitions: int = 8
    replication: int = -1
    retain: float = 604_800.0
    session: float = 10.0
    instance: str = ""
    expired: str = "error"
    compression: str = "none"
    security: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

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
            # A commit waits for its answer in the thread that reads.
            "socket.timeout.ms": 10_000,
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
    login, _, hosts = parts.netloc.rpartition("@")
    if not hosts:
        raise Misuse("the broker URL names no host: write kafka://localhost:9092")
    user, _, password = login.partition(":")
    user = unquote(user) or environment.get("CALLCAST_KAFKA_USER", "")
    password = unquote(password) or environment.get("CALLCAST_KAFKA_PASSWORD", "")
    security = _security(parts.scheme, (user, password), said)
    expired = said.get("expired", "error")
    if expired not in {"error", "earliest"}:
        raise Misuse(f"broker option expired={expired!r}: use 'error' or 'earliest'")
    return Options(
        servers=_with_ports(hosts),
        partitions=int(_number(said, "partitions", 8)),
        replication=int(_number(said, "replication", -1)),
        retain=_number(said, "retain", 604_800.0),
        session=_number(said, "session", 10.0),
        instance=said.get("instance", ""),
        expired=expired,
        compression=said.get("compression", "none"),
        security=security,
    )


def _security(scheme: str, login: tuple[str, str], said: Mapping[str, str]) -> dict[str, str]:
    user, password = login
    is_tls = scheme == "kafkas"
    settings: dict[str, str] = {}
    if user:
        mechanism = said.get("mechanism", "PLAIN").upper()
        if mechanism not in _MECHANISMS:
            raise Misuse(f"broker option mechanism={mechanism!r}: use {', '.join(_MECHANISMS)}")
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
    files = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}
    return settings | {name: said[option] for option, name in files.items() if option in said}


def _with_ports(hosts: str) -> str:
    """Each host with its port; 9092 where it has none."""
    return ",".join(
        host if ":" in host.rpartition("]")[2] else f"{host}:9092" for host in hosts.split(",")
    )


def _number(said: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(said.get(name, default))
    except ValueError as error:
        raise Misuse(f"broker option {name}={said[name]!r}: a number is wanted") from error
