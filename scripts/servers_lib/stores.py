"""Redis, Valkey, NATS, PostgreSQL and MariaDB: one process each."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .debian import Debian
from .golang import build
from .lives import environment
from .records import Node, Record
from .tools import run

NATS = "v2.15.2"


class Redis:
    """Redis or Valkey, which differ in their name; each write is on its disk within a second."""

    ports = 1

    def __init__(self, debian: Debian) -> None:
        self._debian = debian

    def install(self) -> None:
        """The server's package."""
        self._debian.install(f"usr/bin/{self._debian.package}")

    def plan(self, record: Record) -> None:
        """An append-only file in the folder."""
        (port,) = record.ports
        package = self._debian.package
        options = {"--bind": "127.0.0.1", "--port": str(port), "--dir": record.folder}
        argv = [f"/usr/bin/{package}", *(text for pair in options.items() for text in pair)]
        argv += ["--appendonly", "yes"]
        record.version = self._debian.version(package)
        record.url = f"redis://127.0.0.1:{port}/0"
        record.nodes = [
            Node(
                package.removesuffix("-server"),
                self._debian.argv(argv, record.folder),
                environment(),
                f"{record.folder}/server.log",
                ready="Ready to accept connections",
            )
        ]


class Nats:
    """NATS with JetStream."""

    ports = 2

    def install(self) -> None:
        """Built once from its module."""
        self._program()

    def plan(self, record: Record) -> None:
        """One server, with its monitoring page."""
        port, monitoring = record.ports
        argv = [str(self._program()), "-js", "-sd", f"{record.folder}/data", "-a", "127.0.0.1"]
        argv += ["-p", str(port), "-m", str(monitoring)]
        record.version = NATS.removeprefix("v")
        record.url = f"nats://127.0.0.1:{port}"
        record.more = {"monitoring_url": f"http://127.0.0.1:{monitoring}"}
        log = f"{record.folder}/server.log"
        record.nodes = [Node("nats", argv, environment(), log, ready="Server is ready")]

    @staticmethod
    def _program() -> Path:
        return build("nats-server", f"github.com/nats-io/nats-server/v2@{NATS}", ".")


class PostgreSql:
    """PostgreSQL, as the user of its package: it does not run as root."""

    ports = 1

    def __init__(self, debian: Debian, major: int) -> None:
        self._debian = debian
        self._bin = f"/usr/lib/postgresql/{major}/bin/"

    def install(self) -> None:
        """The server's package."""
        self._debian.install(f"{self._bin}postgres".lstrip("/"))

    def plan(self, record: Record) -> None:
        """A cluster of its own, whose user postgres needs no password."""
        (port,) = record.ports
        data = f"{record.folder}/data"
        as_user = other_user(self._debian, record, "postgres")
        first = [f"{self._bin}initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        run(self._debian.argv([*as_user, *first], record.folder), "make a PostgreSQL cluster")
        argv = [f"{self._bin}postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1"]
        argv += ["-k", record.folder]
        record.version = self._debian.version(self._debian.package)
        record.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        record.nodes = [
            Node(
                "postgres",
                self._debian.argv([*as_user, *argv], record.folder),
                environment(),
                f"{record.folder}/server.log",
                ready="database system is ready to accept connections",
                stop_signal=signal.SIGINT,  # ends sessions that are open
                drop_signal=signal.SIGQUIT,  # leaves no shared memory behind, as SIGKILL would
            )
        ]


class MariaDb:
    """MariaDB, as the user of its package."""

    ports = 1

    def __init__(self, debian: Debian) -> None:
        self._debian = debian

    def install(self) -> None:
        """The server's package."""
        self._debian.install("usr/sbin/mariadbd")

    def plan(self, record: Record) -> None:
        """A server of its own, whose user root needs no password, with a database `test`."""
        (port,) = record.ports
        folder = record.folder
        as_user = other_user(self._debian, record, "mysql")
        first = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data"]
        first.append("--auth-root-authentication-method=normal")
        run(self._debian.argv([*as_user, *first], folder), "make a MariaDB", environment())
        argv = ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={folder}/data"]
        argv += [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/server.sock"]
        record.version = self._debian.version(self._debian.package)
        record.url = f"mysql://root@127.0.0.1:{port}/test"
        record.nodes = [
            Node(
                "mariadb",
                self._debian.argv([*as_user, *argv], folder),
                environment(),
                f"{folder}/server.log",
                ready="ready for connections",
            )
        ]


def other_user(debian: Debian, record: Record, user: str) -> list[str]:
    """How to start as that user, who gets the folder; who is not root stays who he is."""
    if os.getuid() != 0:
        return []
    run(debian.argv(["chown", f"{user}:", record.folder], record.folder), "hand over a folder")
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
