"""RabbitMQ: one node with the management plugin, and an epmd of its own."""

from __future__ import annotations

from pathlib import Path

from .debian import Debian
from .lives import environment
from .records import Node, Record

BIN = "/usr/lib/rabbitmq/bin/"
LIB = "usr/lib/rabbitmq/lib"
CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
log.console = true
log.console.level = info
log.file = false
disk_free_limit.absolute = 64MB
"""
OWN_EPMD = "-start_epmd false"
"""Without the one that we start, Erlang leaves an epmd behind that nobody ends."""
LOOPBACK = f"{OWN_EPMD} -kernel inet_dist_use_interface {{127,0,0,1}}"
"""Erlang's own port, by which rabbitmqctl talks to the node."""


class RabbitMq:
    """RabbitMQ of one Debian release."""

    ports = 4

    def __init__(self, debian: Debian, version: str) -> None:
        self._debian = debian
        self._pattern = f"{LIB}/rabbitmq_server-{version}*"

    def install(self) -> None:
        """The server with its Erlang."""
        self._debian.install(self._pattern)

    def plan(self, record: Record) -> None:
        """One node that is named after its instance."""
        amqp, management, _, epmd = record.ports
        folder = Path(record.folder)
        (folder / "rabbitmq.conf").write_text(
            CONFIGURATION.format(amqp=amqp, management=management)
        )
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        env = self._env(record)
        log = str(folder / "rabbitmq.log")
        names = ["epmd", "-port", str(epmd), "-address", "127.0.0.1"]
        record.nodes = [
            Node(
                "epmd",
                self._argv(record, names),
                env,
                str(folder / "epmd.log"),
                port=epmd,
                helper=True,
            ),
            Node(
                "rabbitmq",
                self._argv(record, [f"{BIN}rabbitmq-server"]),
                env,
                log,
                ready="Server startup complete",
            ),
        ]
        found = next(self._debian.root.glob(self._pattern))
        record.version = found.name.removeprefix("rabbitmq_server-")
        record.url = f"amqp://guest:guest@127.0.0.1:{amqp}/%2F"
        control = self._argv(record, [f"{BIN}rabbitmqctl", "-n", env["RABBITMQ_NODENAME"]])
        record.more = {
            "management_url": f"http://guest:guest@127.0.0.1:{management}",
            "rabbitmqctl": ["env", "-i", *(f"{key}={env[key]}" for key in sorted(env)), *control],
            "log": log,
        }

    def _argv(self, record: Record, command: list[str]) -> list[str]:
        return self._debian.argv(command, record.folder)

    @staticmethod
    def _env(record: Record) -> dict[str, str]:
        folder, (amqp, _, erlang, epmd) = record.folder, record.ports
        return environment(
            HOME=folder,  # where the cookie is that lets rabbitmqctl in
            ERL_EPMD_PORT=str(epmd),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME=f"{record.instance}-{amqp}@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(amqp),
            RABBITMQ_DIST_PORT=str(erlang),
            RABBITMQ_CONFIG_FILE=f"{folder}/rabbitmq.conf",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{folder}/enabled_plugins",
            RABBITMQ_CONF_ENV_FILE=f"{folder}/none.conf",
            RABBITMQ_MNESIA_BASE=f"{folder}/data",
            RABBITMQ_LOG_BASE=folder,
            RABBITMQ_LOGS="-",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=LOOPBACK,
            RABBITMQ_CTL_ERL_ARGS=OWN_EPMD,
        )
