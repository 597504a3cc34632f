"""Where RabbitMQ is and who we are there: URLs taken apart, secrets kept out of every text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from callcast.core.errors import Misuse
from callcast.core.tls import is_loopback

PORTS = {"amqp": 5672, "amqps": 5671}
GUEST = "guest"
"""User and password of a server that was just installed."""
FORM = "amqp://user:password@host:5672/vhost"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node; its text names no password."""

    host: str
    port: int
    vhost: str = "/"
    user: str = GUEST
    password: str = field(default=GUEST, repr=False)
    is_tls: bool = False

    def __str__(self) -> str:
        scheme = "amqps" if self.is_tls else "amqp"
        return f"{scheme}://{self.user}@{self.host}:{self.port}/{self.vhost.lstrip('/')}"


@dataclass(frozen=True, slots=True)
class Options:
    """What may stand in the query of a URL. Durations in seconds, files by path."""

    heartbeat: float = 30.0
    """Two of them missed, and the connection counts as lost."""
    connect_wait: float = 4.0
    """For a connection, then an operation fails; below a publish's deadline of 5 s."""
    retain: float = 0.0
    """How long published messages are kept in a stream for `read`; 0 keeps none."""
    ca: str = ""
    """Certificates of who may sign the server's; empty: the system's."""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    """Believe any certificate, or send a password without TLS; the first is said at each start."""


_NUMBERS = ("heartbeat", "connect_wait", "retain")
_FILES = ("ca", "cert", "key")


def parse(url: str) -> tuple[tuple[Endpoint, ...], Options]:
    """Take apart one URL or several with commas between; raises `Misuse` for what is none.

    All name the nodes of one cluster; options may stand in the query of any.
    """
    endpoints: list[Endpoint] = []
    said: dict[str, str] = {}
    for each in _split(url):
        parts = urlsplit(each)
        endpoints.append(_endpoint(parts))
        said.update(parse_qsl(parts.query, keep_blank_values=True))
    options = _options(said)
    if not options.insecure:
        _check_passwords(endpoints)
    return tuple(endpoints), options


def _check_passwords(endpoints: Sequence[Endpoint]) -> None:
    """Raise `Misuse` where everybody on the way could read one."""
    for endpoint in endpoints:
        # Everybody knows guest's, who may come from the server's own machine only.
        is_secret = endpoint.password != GUEST
        if is_secret and not endpoint.is_tls and not is_loopback(endpoint.host):
            raise Misuse(
                f"{endpoint} without TLS shows the password to everybody on the way: use amqps://,"
                " with ?ca=FILE for an authority of yours, or ?insecure=true on a network of yours"
            )


def _split(url: str) -> list[str]:
    """At the commas before a scheme: a password may hold one."""
    found: list[str] = []
    for piece in url.split(","):
        if "://" in piece or not found:
            found.append(piece.strip())
        else:
            found[-1] += "," + piece
    return found


def _endpoint(parts: SplitResult) -> Endpoint:
    if parts.scheme not in PORTS:
        raise Misuse(f"broker URL with scheme {parts.scheme!r}: write {FORM}, or amqps:// for TLS")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Misuse(f"broker URL {parts.scheme}://...: {error}; write {FORM}") from error
    if not host:
        raise Misuse(f"broker URL {parts.scheme}://... names no host: write {FORM}")
    vhost = unquote(parts.path.removeprefix("/")) or "/"
    return Endpoint(
        host,
        port or PORTS[parts.scheme],
        vhost,
        unquote(parts.username or GUEST),
        unquote(parts.password or GUEST),
        is_tls=parts.scheme == "amqps",
    )


def _options(said: Mapping[str, str]) -> Options:
    known: dict[str, float | str | bool] = {}
    for name, text in said.items():
        if name in _NUMBERS:
            known[name] = _seconds(name, text)
        elif name in _FILES:
            known[name] = text
        elif name == "insecure":
            known[name] = text.lower() in {"1", "true", "yes"}
        else:
            raise Misuse(
                f"broker option {name!r} is unknown to amqp://;"
                f" known: {', '.join((*_NUMBERS, *_FILES, 'insecure'))}"
            )
    return Options(**known)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - each by its name, above


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise Misuse(f"broker option {name}={text!r}: a number of seconds is wanted") from error
    if value < 0:
        raise Misuse(f"broker option {name}={text!r}: seconds are not below 0")
    return value
