"""An OpenTelemetry SDK for programs that have none; a provider that is there is never replaced.

The standard ``OTEL_*`` variables count: ``OTEL_SERVICE_NAME``, ``OTEL_BSP_*``, and
``OTEL_TRACES_SAMPLER``, which goes by the parent if not set: so the decision of whoever began a
trace holds over all brokers.
"""

from __future__ import annotations

import os

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

FLUSH_MS = 5_000
"""Longest wait, when a bus is left, for spans that have not been sent yet."""


def trace_to(exporter: SpanExporter, service: str) -> None:
    """Send this process's spans by this exporter, if no provider is set."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    provider = TracerProvider(resource=resource_of(service))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Send what waits; blocks for `FLUSH_MS` at most. Does nothing for others' providers."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(FLUSH_MS)


def resource_of(service: str) -> Resource:
    """What the spans and metrics are of; ``OTEL_SERVICE_NAME`` counts more than the bus's name."""
    named = os.environ.get("OTEL_SERVICE_NAME") or service
    return Resource.create({SERVICE_NAME: named})


def has_meters() -> bool:
    """Whether somebody has set a provider of metrics."""
    return isinstance(metrics.get_meter_provider(), MeterProvider)
