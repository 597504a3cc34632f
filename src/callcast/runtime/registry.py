"""The one place of late imports: heavy libraries load when they are first needed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import socket
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from callcast.core.errors import Misuse
from callcast.core.tls import Tls
from callcast.ports.broker import Broker, Lag
from callcast.ports.clock import Clock
from callcast.ports.codec import Codec
from callcast.ports.observer import Observer
from callcast.ports.session import Database
from callcast.ports.transport import Asgi, Dispatcher, Transport
from callcast.runtime.ports import Ports
from callcast.runtime.tracing import Target

_KNOWN = ("memory", "sqlite", "amqp", "amqps", "kafka", "kafkas")
"""Schemes of the brokers that this version has."""

_NOT_YET = {
    "nats": "nats",
    "redis": "redis",
    "rediss": "redis",
    "postgres": "postgres",
    "postgresql": "postgres",
}
"""Schemes of brokers that have no adapter in this version, and what they are called."""


class Address(Protocol):
    """Where a peer is, and what calls to it show: the part of a `Peer` that a transport needs."""

    @property
    def url(self) -> str:
        """Its base URL."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Sent with every call."""
        ...

    @property
    def auth(self) -> str | Callable[[], str] | None:
        """The value of ``Authorization``, or what gives it."""
        ...

    @property
    def tls(self) -> Tls | None:
        """Whose certificates are believed, and which one is shown."""
        ...


class Record(Protocol):
    """Where a local record is kept, and what of."""

    @property
    def path(self) -> str:
        """Its file."""
        ...

    @property
    def keeps_all(self) -> bool:
        """Whether every span is kept."""
        ...


class HttpServer(Protocol):
    """Serves until it is stopped."""

    async def serve(self) -> None:
        """Serve until `stop`, then finish what is under way."""
        ...

    def stop(self) -> None:
        """Accept no more. Idempotent."""
        ...


def load(module: str, *, extra: str = "") -> Any:
    """Import a module now; raises `Misuse` with the install line when an extra is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        wanted = module.partition(".")[0]
        if not extra or error.name != wanted:
            raise
        raise Misuse(f"{wanted} is not installed: pip install 'callcast[{extra}]'") from error


def open_broker(url: str, clock: Clock) -> Broker:
    """Make the broker that a URL names, not yet connected; raises `Misuse` for a URL it is not."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "memory":
        return _memory(options, clock)
    if parts.scheme == "sqlite":
        return _sqlite(url, options, clock)
    if parts.scheme in {"amqp", "amqps"}:
        return _rabbitmq(url, clock)
    if parts.scheme in {"kafka", "kafkas"}:
        return _kafka(url, clock)
    if parts.scheme in _NOT_YET:
        name = _NOT_YET[parts.scheme]
        raise Misuse(
            f"broker {parts.scheme}://: this version of callcast has no {name} adapter yet, and"
            f" pip install 'callcast[{name}]' brings its driver only; use amqp://host/,"
            " kafka://host, sqlite:///file.db or memory://"
        )
    raise Misuse(
        f"broker URL with scheme {parts.scheme!r}: use one of {', '.join(_KNOWN)},"
        " such as 'sqlite:///orders.db'"
    )


def json_codec() -> Codec:
    """The codec of messages and calls."""
    codec: Codec = load("callcast.codecs").JsonCodec()
    return codec


def otel_observer(clock: Clock, system: str, server: tuple[str, int] | None) -> Observer:
    """The observer that tells OpenTelemetry and the log; what the broker is called, and where."""
    observer: Observer = load("callcast.telemetry.otel").OtelObserver(
        clock, system=system, server=server
    )
    return observer


def trace_to(target: Target, service: str) -> bool:
    """Send this process's spans there, if the program has no provider of its own.

    False when OpenTelemetry's variables ask for it and its SDK is not installed.
    """
    try:
        exporter = _otel(f"callcast.telemetry.{target.form}_spans").exporter(target.endpoint)
        _otel("callcast.telemetry.sdk").trace_to(exporter, service)
    except Misuse:
        if target.endpoint:
            raise
        return False
    return True


def flush_traces() -> None:
    """Send the spans that wait; blocks for some seconds at most."""
    _otel("callcast.telemetry.sdk").flush()


def metrics_page(service: str) -> tuple[str, bytes] | None:
    """What Prometheus reads: content type and body; None when metrics go elsewhere."""
    found: tuple[str, bytes] | None = _otel("callcast.telemetry.exposition").page(service)
    return found


def queue_page(rows: Sequence[tuple[str, str, Lag]] | None) -> tuple[str, bytes]:
    """What Prometheus reads of a broker's groups: topic, group and lag of each."""
    found: tuple[str, bytes] = _otel("callcast.telemetry.queue_page").queue_page(rows)
    return found


def _otel(module: str) -> Any:
    """A module that needs the extra; raises `Misuse` with the install line without it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Misuse(f"{error.name} is not installed: pip install 'callcast[otel]'") from error


def recording_observer(ports: Ports, *, service: str, system: str, record: Record) -> Observer:
    """The observer of these ports with a local record beside it; nothing is opened yet."""
    observer: Observer = load("callcast.telemetry.record").recording(
        ports.observer,
        ports.clock,
        service=service,
        system=system,
        path=record.path,
        process=f"{os.getpid()}-{ports.new_id()}",
        keeps_all=record.keeps_all,
    )
    return observer


def local_transport(dispatcher: Dispatcher, clock: Clock) -> Transport:
    """Calls to services of this process."""
    transport: Transport = load("callcast.transports.local").LocalTransport(dispatcher, clock)
    return transport


def http_transport(
    service: str, peer: Address, *, codec: Codec, ports: Ports, body_max_bytes: int
) -> Transport:
    """Calls over HTTP to one peer; no request or answer has a larger body."""
    limits = load("callcast.transports.limits").HttpLimits(body_max_bytes=body_max_bytes)
    transport: Transport = load("callcast.transports.aiohttp_client").AiohttpTransport(
        service,
        peer.url,
        codec=codec,
        clock=ports.clock,
        observer=ports.observer,
        headers=peer.headers,
        auth=peer.auth,
        tls=peer.tls,
        limits=limits,
    )
    return transport


def check_tls(service: str, tls: Tls) -> None:
    """Raise `Misuse` when the files of a peer's TLS settings cannot be used."""
    load("callcast.transports.tls").context_of(tls, service)


def asgi_app(
    dispatcher: Dispatcher, codec: Codec, ports: Ports, *, body_max_bytes: int, name: str
) -> Asgi:
    """An ASGI application that serves what the dispatcher has, for the bus of that name."""
    limits = load("callcast.transports.limits").HttpLimits(body_max_bytes=body_max_bytes)
    app: Asgi = load("callcast.transports.http_server").asgi_app(
        dispatcher,
        codec=codec,
        limits=limits,
        new_id=ports.new_id,
        metrics=lambda: metrics_page(name),
    )
    return app


def http_server(app: Asgi, listener: socket) -> HttpServer:
    """A server of an ASGI application on a listening socket, not yet started."""
    server: HttpServer = load("callcast.transports.uvicorn_server").HttpServer(app, listener)
    return server


def backup_sqlite(file: str, target: str) -> None:
    """Copy a SQLite file consistently while it is in use; the target is whole or not there."""
    load("callcast.brokers.sqlite").backup(file, target)


def open_database(declared: object, ports: Ports) -> Database:
    """The database that a service declared: a URL, or a `Database`; else `Misuse`."""
    if isinstance(declared, Database):
        return declared
    shown = type(declared).__name__
    if isinstance(declared, str):
        parts = urlsplit(declared)
        if parts.scheme == "sqlite":
            _refuse_unknown("sqlite", dict(parse_qsl(parts.query, keep_blank_values=True)), ())
            return sqlite_database(sqlite_path(declared), ports)
        # Behind the scheme there may be a password.
        shown = f"'{parts.scheme}://...'" if parts.scheme else repr(declared)
    raise Misuse(
        f"database={shown}: give a URL such as 'sqlite:///orders-data.db' or a"
        " callcast.ports.session.Database"
    )


def is_one_file(url: str, other: str) -> bool:
    """Whether both are SQLite URLs of the same file."""
    if {urlsplit(url).scheme, urlsplit(other).scheme} != {"sqlite"}:
        return False
    return Path(sqlite_path(url)).resolve() == Path(sqlite_path(other)).resolve()


def sqlite_database(path: str, ports: Ports) -> Database:
    """A SQLite database for transactions; ``:memory:`` is private."""
    database: Database = load("callcast.sessions.sqlite").SqliteDatabase(
        path, clock=ports.clock, failpoints=ports.failpoints
    )
    return database


def sqlite_path(url: str) -> str:
    """The file of ``sqlite:///file.db`` (relative) or ``sqlite:////var/file.db`` (absolute)."""
    path = urlsplit(url).path.removeprefix("/")
    if not path:
        raise Misuse(f"{url!r} names no file: write sqlite:///orders.db")
    return path


def _memory(options: Mapping[str, str], clock: Clock) -> Broker:
    _refuse_unknown("memory", options, ("retain",))
    retain = _number("retain", options.get("retain", "0"))
    broker: Broker = load("callcast.brokers.memory").MemoryBroker(clock, retain=retain)
    return broker


def _sqlite(url: str, options: Mapping[str, str], clock: Clock) -> Broker:
    _refuse_unknown("sqlite", options, ("synchronous", "retain"))
    path = sqlite_path(url)
    said: dict[str, object] = dict(options)
    if "retain" in said:
        said["retain"] = _number("retain", options["retain"])
    make: Callable[..., Broker] = load("callcast.brokers.sqlite").SqliteBroker
    return make(path, clock=clock, **said)


def _rabbitmq(url: str, clock: Clock) -> Broker:
    load("pika", extra="rabbitmq")
    broker: Broker = load("callcast.brokers.rabbitmq").RabbitBroker(url, clock=clock)
    return broker


def _kafka(url: str, clock: Clock) -> Broker:
    load("confluent_kafka", extra="kafka")
    kafka = load("callcast.brokers.kafka")
    broker: Broker = kafka.KafkaBroker(kafka.options_of(url, os.environ), clock=clock)
    return broker


def _refuse_unknown(scheme: str, options: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise Misuse(
                f"broker option {name!r} is unknown to {scheme}://;"
                f" known: {', '.join(known) or 'none'}"
            )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Misuse(f"broker option {name}={text!r}: a number of seconds is wanted") from error
