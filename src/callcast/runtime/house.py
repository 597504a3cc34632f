"""What all hosts of one bus share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from callcast.core.message import Message
from callcast.ports.broker import Broker
from callcast.ports.codec import Codec
from callcast.ports.session import Database
from callcast.ports.tasks import Tasks
from callcast.runtime.envelope import Envelopes
from callcast.runtime.leases import Leases
from callcast.runtime.ports import Ports
from callcast.runtime.service import Service
from callcast.runtime.serving import Desk
from callcast.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The bus's own parts, as a host needs them."""

    bus: object
    """Injected where a handler asks for it, by its type."""
    name: str
    broker: Broker
    codec: Codec
    envelopes: Envelopes
    ports: Ports
    settings: Settings
    tasks: Tasks
    leases: Leases
    executor: Executor
    desk: Desk
    send: Callable[[Message], Awaitable[object]]
    """Publishes one message durably, through the PUBLISH chain."""
    open_database: Callable[[Service, str], Database]
    """Opens the database of a service; the text names a handler that asks for it, for errors."""
