"""The ports of a program that runs for real: the system's clock and randomness, OpenTelemetry."""

from __future__ import annotations

from urllib.parse import urlsplit

from callcast.ports.broker import Broker
from callcast.ports.failpoints import nowhere
from callcast.runtime import registry
from callcast.runtime.chance import Ids, system_dice
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.ports import Ports


def system_ports(broker: str | Broker) -> Ports:
    """Ports for a bus on this broker; nothing is started yet."""
    clock = AsyncioClock()
    system = urlsplit(broker).scheme if isinstance(broker, str) else broker.traits.name
    return Ports(
        clock=clock,
        dice=system_dice,
        new_id=Ids(),
        observer=registry.otel_observer(clock, system),
        failpoints=nowhere,
    )
