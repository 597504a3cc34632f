"""All kinds of servers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .debian import Debian
from .kafka import Kafka
from .lives import Kind
from .rabbitmq import RabbitMq

KINDS: Mapping[str, Callable[[], Kind]] = {
    "rabbitmq": lambda: RabbitMq(Debian("trixie", "rabbitmq-server"), "4."),
    "rabbitmq-3.10": lambda: RabbitMq(Debian("bookworm", "rabbitmq-server"), "3.10"),
    "kafka": lambda: Kafka(1),
    "kafka-3": lambda: Kafka(3),
}
