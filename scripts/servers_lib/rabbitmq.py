"""RabbitMQ: one node or a cluster, with the management plugin, and an epmd of its own."""

from __future__ import annotations

import secrets
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
CLUSTER = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
"""
MEMBER = "cluster_formation.classic_config.nodes.{number} = {node}\n"
PORTS_OF_NODE = 3
"""For AMQP, for management, for Erlang; one more for epmd is shared."""
OWN_EPMD = "-start_epmd false"
"""Without the one that we start, Erlang leaves an epmd behind that nobody ends."""
LOOPBACK = f"{OWN_EPMD} -kernel inet_dist_use_interface {{127,0,0,1}}"
"""Erlang's own port, by which rabbitmqctl talks to the node."""
SOON = " -kernel net_ticktime 8"
"""Seconds after which a node that stands still is given up; a minute, in production."""


class RabbitMq:
    """RabbitMQ of one Debian release; several nodes are one cluster."""

    def __init__(self, debian: Debian, version: str, nodes: int = 1) -> None:
        self.ports = nodes * PORTS_OF_NODE + 1
        self._debian = debian
        self._pattern = f"{LIB}/rabbitmq_server-{version}*"
        self._nodes = nodes

    def install(self) -> None:
        """The server with its Erlang."""
        self._debian.install(self._pattern)

    def plan(self, record: Record) -> None:
        """Nodes that are named after their instance and port, and know each other."""
        folder = Path(record.folder)
        cookie = folder / ".erlang.cookie"  # what lets them, and rabbitmqctl, in
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        members = [Member(record, index) for index in range(self._nodes)]
        names = ["epmd", "-port", str(record.ports[-1]), "-address", "127.0.0.1"]
        env = members[0].env
        log = str(folder / "epmd.log")
        argv = self._argv(record, names)
        record.nodes = [Node("epmd", argv, env, log, port=record.ports[-1], helper=True)]
        for member in members:
            member.configure(members)
            record.nodes.append(self._node(record, member))
        found = next(self._debian.root.glob(self._pattern))
        record.version = found.name.removeprefix("rabbitmq_server-")
        record.url = ",".join(member.url for member in members)
        first = members[0]
        control = self._argv(record, [f"{BIN}rabbitmqctl", "-n", first.name])
        record.more = {
            "management_url": first.management_url,
            "management_urls": [member.management_url for member in members],
            "rabbitmqctl": ["env", "-i", *(f"{key}={env[key]}" for key in sorted(env)), *control],
            "log": first.log,
        }

    def _node(self, record: Record, member: Member) -> Node:
        return Node(
            str(member.number) if self._nodes > 1 else "rabbitmq",
            self._argv(record, [f"{BIN}rabbitmq-server"]),
            member.env,
            member.log,
            ready="Server startup complete",
            url=member.url,
        )

    def _argv(self, record: Record, command: list[str]) -> list[str]:
        return self._debian.argv(command, record.folder)


class Member:
    """One node: its ports, its folder, and how the others call it."""

    def __init__(self, record: Record, index: int) -> None:
        start = index * PORTS_OF_NODE
        self.number = index + 1
        self.amqp, self._management, self._erlang = record.ports[start : start + PORTS_OF_NODE]
        self.name = f"{record.instance}-{self.amqp}@localhost"
        self.url = f"amqp://guest:guest@127.0.0.1:{self.amqp}/%2F"
        self.management_url = f"http://guest:guest@127.0.0.1:{self._management}"
        self.folder = Path(record.folder) / str(self.number)
        self.log = str(self.folder / "rabbitmq.log")
        self._home = record.folder
        self._epmd = record.ports[-1]
        self._is_alone = len(record.ports) == PORTS_OF_NODE + 1

    def configure(self, members: list[Member]) -> None:
        """Write its files."""
        self.folder.mkdir()
        text = CONFIGURATION.format(amqp=self.amqp, management=self._management)
        if len(members) > 1:
            text += CLUSTER
            text += "".join(MEMBER.format(number=one.number, node=one.name) for one in members)
        (self.folder / "rabbitmq.conf").write_text(text)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")

    @property
    def env(self) -> dict[str, str]:
        """What it and its commands see."""
        folder = str(self.folder)
        return environment(
            HOME=self._home,
            ERL_EPMD_PORT=str(self._epmd),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME=self.name,
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.amqp),
            RABBITMQ_DIST_PORT=str(self._erlang),
            RABBITMQ_CONFIG_FILE=f"{folder}/rabbitmq.conf",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{folder}/enabled_plugins",
            RABBITMQ_CONF_ENV_FILE=f"{folder}/none.conf",
            RABBITMQ_MNESIA_BASE=f"{folder}/data",
            RABBITMQ_LOG_BASE=folder,
            RABBITMQ_LOGS="-",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=LOOPBACK + ("" if self._is_alone else SOON),
            RABBITMQ_CTL_ERL_ARGS=OWN_EPMD,
        )
