"""The ports of a program that runs for real: the system's clock and randomness, OpenTelemetry."""

from __future__ import annotations

from urllib.parse import urlsplit

from callcast.ports.broker import Broker
from callcast.ports.failpoints import nowhere
from callcast.runtime import registry
from callcast.runtime.chance import Ids, system_dice
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.ports import Ports

SYSTEMS = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "kafkas": "kafka",
    "postgres": "postgresql",
    "rediss": "redis",
}
"""What OpenTelemetry calls the brokers whose URLs begin otherwise."""


PORTS = {
    "amqp": 5672,
    "amqps": 5671,
    "kafka": 9092,
    "kafkas": 9092,
    "nats": 4222,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rediss": 6379,
}
"""Where the servers listen whose URLs name no port."""


def system_ports(broker: str | Broker) -> Ports:
    """Ports for a bus on this broker; nothing is started yet."""
    clock = AsyncioClock()
    system = system_of(broker) if isinstance(broker, str) else broker.traits.name
    server = server_of(broker) if isinstance(broker, str) else None
    return Ports(
        clock=clock,
        dice=system_dice,
        new_id=Ids(),
        observer=registry.otel_observer(clock, system, server),
        failpoints=nowhere,
    )


def system_of(url: str) -> str:
    """The ``messaging.system`` of the broker behind this URL."""
    scheme = urlsplit(url).scheme
    return SYSTEMS.get(scheme, scheme)


def server_of(url: str) -> tuple[str, int] | None:
    """Host and port of the one server that this URL names.

    None for several: which of them a message meets is not known here. The adapter refuses a URL
    that is none; here it names no server.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number: of several hosts, too
        return None
    if not host or "," in host or url.count("://") > 1 or parts.scheme not in PORTS:
        return None
    return host, port or PORTS[parts.scheme]
