"""RabbitMQ: one node with the management plugin or a cluster of three, and an epmd of its own."""

from __future__ import annotations

from dataclasses import dataclass
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
CLUSTER = "cluster_formation.peer_discovery_backend = classic_config\n"
PEER = "cluster_formation.classic_config.nodes.{index} = {name}\n"
OWN_EPMD = "-start_epmd false"
"""Without the one that we start, Erlang leaves an epmd behind that nobody ends."""
LOOPBACK = f"{OWN_EPMD} -kernel inet_dist_use_interface {{127,0,0,1}}"
"""Erlang's own port, by which rabbitmqctl talks to the node."""


class RabbitMq:
    """RabbitMQ of one Debian release; a cluster of so many nodes."""

    def __init__(self, debian: Debian, version: str, nodes: int = 1) -> None:
        self._debian = debian
        self._nodes = nodes
        self._pattern = f"{LIB}/rabbitmq_server-{version}*"
        self.ports = 1 + 3 * nodes

    def install(self) -> None:
        """The server with its Erlang."""
        self._debian.install(self._pattern)

    def plan(self, record: Record) -> None:
        """Nodes that are named after their instance."""
        members = _members(record, self._nodes)
        epmd = record.ports[0]
        names = ["epmd", "-port", str(epmd), "-address", "127.0.0.1"]
        log = str(Path(record.folder) / "epmd.log")
        argv = self._argv(record, names)
        env = members[0].env(epmd, record.folder)
        record.nodes = [Node("epmd", argv, env, log, port=epmd, helper=True)]
        peers = [PEER.format(index=one.index, name=one.name) for one in members]
        for one in members:
            one.write(CLUSTER + "".join(peers) if self._nodes > 1 else "")
            record.nodes.append(self._node(record, one))
        found = next(self._debian.root.glob(self._pattern))
        record.version = found.name.removeprefix("rabbitmq_server-")
        record.url = ",".join(one.url for one in members)
        control = self._argv(record, [f"{BIN}rabbitmqctl", "-n", members[0].name])
        record.more = {
            "management_url": f"http://guest:guest@127.0.0.1:{members[0].management}",
            "rabbitmqctl": ["env", "-i", *(f"{key}={env[key]}" for key in sorted(env)), *control],
            "log": members[0].log,
        }

    def _node(self, record: Record, one: Member) -> Node:
        return Node(
            "rabbitmq" if self._nodes == 1 else str(one.index),
            self._argv(record, [f"{BIN}rabbitmq-server"]),
            one.env(record.ports[0], record.folder),
            one.log,
            ready="Server startup complete",
            url=one.url,
        )

    def _argv(self, record: Record, command: list[str]) -> list[str]:
        return self._debian.argv(command, record.folder)


@dataclass(frozen=True)
class Member:
    """One node of a cluster."""

    index: int
    name: str
    folder: str
    amqp: int
    management: int
    erlang: int

    @property
    def url(self) -> str:
        """Of this node alone."""
        return f"amqp://guest:guest@127.0.0.1:{self.amqp}/%2F"

    @property
    def log(self) -> str:
        """Its log file."""
        return f"{self.folder}/rabbitmq.log"

    def write(self, cluster: str) -> None:
        """Its configuration."""
        folder = Path(self.folder)
        folder.mkdir(exist_ok=True)
        text = CONFIGURATION.format(amqp=self.amqp, management=self.management)
        (folder / "rabbitmq.conf").write_text(text + cluster)
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")

    def env(self, epmd: int, home: str) -> dict[str, str]:
        """Its environment; at home is the cookie that lets rabbitmqctl and other nodes in."""
        return environment(
            HOME=home,
            ERL_EPMD_PORT=str(epmd),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME=self.name,
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.amqp),
            RABBITMQ_DIST_PORT=str(self.erlang),
            RABBITMQ_CONFIG_FILE=f"{self.folder}/rabbitmq.conf",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{self.folder}/enabled_plugins",
            RABBITMQ_CONF_ENV_FILE=f"{self.folder}/none.conf",
            RABBITMQ_MNESIA_BASE=f"{self.folder}/data",
            RABBITMQ_LOG_BASE=self.folder,
            RABBITMQ_LOGS="-",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=LOOPBACK,
            RABBITMQ_CTL_ERL_ARGS=OWN_EPMD,
        )


def _members(record: Record, nodes: int) -> list[Member]:
    """One in the folder of the server itself, several in folders of their own."""
    found: list[Member] = []
    for index in range(1, nodes + 1):
        amqp, management, erlang = record.ports[3 * index - 2 : 3 * index + 1]
        folder = record.folder if nodes == 1 else f"{record.folder}/{index}"
        name = f"{record.instance}-{amqp}@localhost"
        found.append(Member(index, name, folder, amqp, management, erlang))
    return found
