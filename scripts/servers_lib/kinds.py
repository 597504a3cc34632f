"""All kinds of servers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .debian import Debian
from .kafka import Kafka
from .kafka_guard import Guard
from .lives import Kind
from .rabbitmq import RabbitMq
from .stores import MariaDb, Nats, PostgreSql, Redis
from .telemetry import Jaeger, Prometheus, Zipkin
from .tools import need, need_module

KINDS: Mapping[str, Callable[[], Kind]] = {
    "rabbitmq": lambda: RabbitMq(Debian("trixie", "rabbitmq-server"), "4."),
    "rabbitmq-3": lambda: RabbitMq(Debian("trixie", "rabbitmq-server"), "4.", nodes=3),
    "rabbitmq-3.10": lambda: RabbitMq(Debian("bookworm", "rabbitmq-server"), "3.10"),
    "kafka": lambda: Kafka(is_quick=False),
    "kafka-quick": lambda: Kafka(detours=2),
    "kafka-3": lambda: Kafka(3),
    "kafka-guarded": lambda: Kafka(guard=Guard()),
    "redis": lambda: Redis(Debian("trixie", "redis-server")),
    "valkey": lambda: Redis(Debian("trixie", "valkey-server")),
    "nats": Nats,
    "postgres": lambda: PostgreSql(Debian("bookworm", "postgresql-15"), 15),
    "mariadb": lambda: MariaDb(Debian("bookworm", "mariadb-server")),
    "zipkin": Zipkin,
    "jaeger": Jaeger,
    "prometheus": lambda: Prometheus(Debian("bookworm", "prometheus")),
}

TOOLS: Mapping[str, Callable[[], str]] = {
    "kcat": lambda: need("kcat", "kcat"),
    "promtool": lambda: need("promtool", "prometheus"),
    "proton": lambda: need_module("proton", "python3-qpid-proton"),
}
"""Clients of others that tests speak to servers with, of Debian packages: the command of each."""
