"""Zipkin, Jaeger and Prometheus: where traces and metrics are looked at."""

from __future__ import annotations

from pathlib import Path

from .debian import Debian
from .golang import build
from .java import java, maven
from .lives import environment
from .records import Node, Record
from .tools import built, cache, say

ZIPKIN = "3.6.1"
JAEGER = "v1.76.0"
JAEGER_CONFIGURATION = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics:
      level: none
extensions:
  jaeger_query:
    storage:
      traces: memory
    http:
      endpoint: 127.0.0.1:{page}
    grpc:
      endpoint: 127.0.0.1:{page_grpc}
  jaeger_storage:
    backends:
      memory:
        memory:
          max_traces: 100000
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{http}
      grpc:
        endpoint: 127.0.0.1:{grpc}
exporters:
  jaeger_storage_exporter:
    trace_storage: memory
"""
PROMETHEUS_CONFIGURATION = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{targets}/*.rules]
scrape_configs:
  - job_name: tests
    file_sd_configs:
      - files: [{targets}/*.json]
        refresh_interval: 1s
"""


class Zipkin:
    """Zipkin, which keeps spans in memory."""

    ports = 1

    def install(self) -> None:
        """One jar, and a Java for it."""
        java()
        with built(f"zipkin-{ZIPKIN}") as folder:
            if folder is not None:
                say(f"fetching Zipkin {ZIPKIN}")
                artifact = f"-Dartifact=io.zipkin:zipkin-server:{ZIPKIN}:jar:exec"
                maven("dependency:copy", artifact, f"-DoutputDirectory={folder}")

    def plan(self, record: Record) -> None:
        """Spans come in and are asked for at one port."""
        (port,) = record.ports
        jar = cache() / f"zipkin-{ZIPKIN}" / f"zipkin-server-{ZIPKIN}-exec.jar"
        place = {"ip": "127.0.0.1", "port": str(port), "protocols[0]": "http"}
        options = [f"-Darmeria.ports[0].{key}={value}" for key, value in place.items()]
        record.version = ZIPKIN
        record.url = f"http://127.0.0.1:{port}"
        record.more = {"spans_url": f"{record.url}/api/v2/spans"}
        record.nodes = [
            Node(
                "zipkin",
                [java(), "-Xmx512m", *options, "-jar", str(jar)],
                environment(),
                f"{record.folder}/server.log",
                ready="Serving HTTP at",
            )
        ]


class Jaeger:
    """Jaeger 2, which keeps spans in memory; it has the API, but no page to look at."""

    ports = 4

    def install(self) -> None:
        """Built once from its module."""
        self._program()

    def plan(self, record: Record) -> None:
        """Spans come in by OTLP."""
        page, page_grpc, http, grpc = record.ports
        configuration = Path(record.folder) / "jaeger.yaml"
        configuration.write_text(
            JAEGER_CONFIGURATION.format(page=page, page_grpc=page_grpc, http=http, grpc=grpc)
        )
        record.version = JAEGER.removeprefix("v")
        record.url = f"http://127.0.0.1:{page}"
        record.more = {
            "otlp_http_url": f"http://127.0.0.1:{http}",
            "otlp_grpc_url": f"http://127.0.0.1:{grpc}",
        }
        record.nodes = [
            Node(
                "jaeger",
                [str(self._program()), "--config", str(configuration)],
                environment(),
                f"{record.folder}/server.log",
                ready="Everything is ready",
            )
        ]

    @staticmethod
    def _program() -> Path:
        return build("jaeger", f"github.com/jaegertracing/jaeger@{JAEGER}", "./cmd/jaeger")


class Prometheus:
    """Prometheus, which looks each second at the targets that a test writes into a folder."""

    ports = 1

    def __init__(self, debian: Debian) -> None:
        self._debian = debian

    def install(self) -> None:
        """The server's package; promtool comes with it."""
        self._debian.install("usr/bin/prometheus")

    def plan(self, record: Record) -> None:
        """Targets are files as Prometheus wants them: [{"targets": ["127.0.0.1:9000"]}].

        Rules are files beside them that end in ``.rules``, and are read at POST /-/reload.
        """
        (port,) = record.ports
        folder = Path(record.folder)
        targets = folder / "targets"
        targets.mkdir()
        configuration = folder / "prometheus.yml"
        configuration.write_text(PROMETHEUS_CONFIGURATION.format(targets=targets))
        argv = ["/usr/bin/prometheus", f"--config.file={configuration}"]
        argv += [f"--storage.tsdb.path={folder / 'data'}"]
        argv += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle"]
        record.version = self._debian.version("prometheus")
        record.url = f"http://127.0.0.1:{port}"
        record.more = {"targets_folder": str(targets)}
        record.nodes = [
            Node(
                "prometheus",
                self._debian.argv(argv, record.folder),
                environment(),
                f"{record.folder}/server.log",
                ready="Server is ready to receive web requests",
            )
        ]
