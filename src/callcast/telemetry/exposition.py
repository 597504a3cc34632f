"""``/metrics``: what Prometheus reads, written by OpenTelemetry's own exporter.

Nothing is measured before somebody asks: the first request sets up a provider of metrics, if the
program has none, and buses find it within a second. Counters begin at 0 then, which Prometheus
takes for a restart.
"""

from __future__ import annotations

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from callcast.telemetry.sdk import has_meters, resource_of

_OWN: dict[str, CollectorRegistry] = {}
"""The one registry of this process, under ``own``; set by the first page."""


def page(service: str) -> tuple[str, bytes] | None:
    """Content type and body; None when the program sends its metrics elsewhere."""
    registry = _OWN.get("own")
    if registry is None:
        if has_meters():
            return None
        registry = _OWN["own"] = CollectorRegistry(auto_describe=True)
        reader = PrometheusMetricReader(registry=registry)
        provider = MeterProvider(metric_readers=[reader], resource=resource_of(service))
        metrics.set_meter_provider(provider)
    return CONTENT_TYPE_LATEST, generate_latest(registry)
