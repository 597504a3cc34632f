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


def system_ports(broker: str | Broker) -> Ports:
    """Ports for a bus on this broker; nothing is started yet."""
    clock = AsyncioClock()
    system = system_of(broker) if isinstance(broker, str) else broker.traits.name
    return Ports(
        clock=clock,
        dice=system_dice,
        new_id=Ids(),
        observer=registry.otel_observer(clock, system),
        failpoints=nowhere,
    )


def system_of(url: str) -> str:
    """The ``messaging.system`` of the broker behind this URL."""
    scheme = urlsplit(url).scheme
    return SYSTEMS.get(scheme, scheme)
