"""Kafka in KRaft mode: each node is broker and controller."""

from __future__ import annotations

from pathlib import Path

from .java import java, maven
from .kafka_guard import Guard, Listener, said
from .lives import environment
from .records import Node, Record
from .tools import built, cache, run, say

VERSION = "4.4.0"
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>callcast</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
CONFIGURATION = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=5
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=5
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
broker.session.timeout.ms=6000
"""
"""A topic exists when somebody made it; a dead node is out after six seconds."""
QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
"""Java starts with less than half of the work, and serves half as fast later."""
LOG = {
    "org.slf4j.simpleLogger.defaultLogLevel": "info",
    "org.slf4j.simpleLogger.showDateTime": "true",
    "org.slf4j.simpleLogger.dateTimeFormat": "yyyy-MM-dd HH:mm:ss.SSS",
}


class Kafka:
    """A cluster of so many nodes.

    `is_quick`: it is started often and has little to do. `detours`: so many proxies may stand
    before it. Clients go where the server says that it is; so it has that many more listeners,
    which send their clients to ports where nobody listens before a test puts a proxy there.
    """

    def __init__(
        self, nodes: int = 1, *, guard: Guard | None = None, detours: int = 0, is_quick: bool = True
    ) -> None:
        self._nodes = nodes
        self._guard = guard
        self._options = QUICK if is_quick else []
        self.ports = 2 * nodes + 2 * detours + (guard.ports if guard else 0)

    def install(self) -> None:
        """The jars, and a Java that is new enough."""
        java()
        with built(f"kafka-{VERSION}") as folder:
            if folder is not None:
                say(f"fetching Kafka {VERSION}")
                (folder / "pom.xml").write_text(POM.format(version=VERSION))
                copy = ["dependency:copy-dependencies", f"-DoutputDirectory={folder / 'libs'}"]
                maven("-f", str(folder / "pom.xml"), *copy)

    def plan(self, record: Record) -> None:
        """Format the data of each node for one cluster."""
        clients = record.ports[: self._nodes]
        controllers = record.ports[self._nodes :][: self._nodes]
        record.version = VERSION
        record.url = "kafka://" + ",".join(f"127.0.0.1:{port}" for port in clients)
        voters = ",".join(f"{i}@127.0.0.1:{port}" for i, port in enumerate(controllers, 1))
        more, settings = self._more(record)
        tool = [*java_with(QUICK), "kafka.tools.StorageTool"]
        cluster = run([*tool, "random-uuid"], "name a cluster")
        for index, (port, controller) in enumerate(zip(clients, controllers, strict=True), 1):
            folder = Path(record.folder) / str(index)
            folder.mkdir()
            properties = folder / "server.properties"
            own = [Listener("PLAINTEXT", port, port), Listener("CONTROLLER", controller)]
            text = CONFIGURATION.format(
                node=index,
                voters=voters,
                data=folder / "data",
                copies=self._nodes,
                in_sync=min(2, self._nodes),
                **said([*own, *more]),
            )
            properties.write_text(text + settings)
            form = ["format", "-t", cluster.strip(), "-c", str(properties)]
            form += self._guard.format if self._guard else []
            run([*tool, *form], "format the data of Kafka")
            record.nodes.append(self._node(index, port, folder))

    def _more(self, record: Record) -> tuple[list[Listener], str]:
        """The listeners beside those that every node has, and what the guard sets."""
        ports = record.ports[2 * self._nodes :]
        if self._guard:
            record.more = self._guard.told(ports, Path(record.folder))
            return self._guard.listeners(ports), self._guard.settings(Path(record.folder))
        pairs = list(zip(ports[::2], ports[1::2], strict=True))
        record.more = {"detours": pairs}
        return [Listener(f"DETOUR{n}", *pair) for n, pair in enumerate(pairs)], ""

    def _node(self, index: int, port: int, folder: Path) -> Node:
        heap = ["-Xmx1g", "-Xms256m"] if self._nodes == 1 else ["-Xmx512m", "-Xms128m"]
        return Node(
            str(index),
            [*java_with([*heap, *self._options]), "kafka.Kafka", str(folder / "server.properties")],
            environment(),
            str(folder / "kafka.log"),
            ready="Kafka Server started",
            url=f"kafka://127.0.0.1:{port}",
        )


def java_with(options: list[str]) -> list[str]:
    """Java with Kafka's libraries."""
    logging = [f"-D{key}={value}" for key, value in LOG.items()]
    libraries = cache() / f"kafka-{VERSION}" / "libs" / "*"
    return [java(), *options, *logging, "-cp", str(libraries)]
