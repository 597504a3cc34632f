"""An OpenTelemetry SDK for programs that have none; a provider that is there is never replaced.

The standard ``OTEL_*`` variables count: ``OTEL_SERVICE_NAME``, ``OTEL_BSP_*``, and
``OTEL_TRACES_SAMPLER``, which goes by the parent if not set: so the decision of whoever began a
trace holds over all brokers.
"""

from __future__ import annotations

import atexit
import os
from threading import Thread

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

FLUSH_S = 5.0
"""Longest wait, when a bus is left, for spans that have not been sent yet."""
_OWN: dict[str, TracerProvider] = {}
"""The one provider that was set up here, under ``own``."""


def trace_to(exporter: SpanExporter, service: str) -> None:
    """Send this process's spans by this exporter, if no provider is set."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    # At the end the SDK would wait half a minute for a receiver that does not answer.
    provider = TracerProvider(resource=resource_of(service), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _OWN["own"] = provider
    atexit.register(provider.shutdown)


def flush() -> None:
    """Send what waits; blocks for `FLUSH_S` at most. Does nothing for others' providers.

    A receiver that was too slow for that is not waited for again when the program ends.
    """
    provider = _OWN.get("own")
    if provider is None:
        return
    # The SDK takes a limit for this and does not keep it.
    flushing = Thread(target=provider.force_flush, name="callcast-flush", daemon=True)
    flushing.start()
    flushing.join(FLUSH_S)
    atexit.unregister(provider.shutdown)
    if not flushing.is_alive():
        atexit.register(provider.shutdown)


def resource_of(service: str) -> Resource:
    """What the spans and metrics are of; ``OTEL_SERVICE_NAME`` counts more than the bus's name."""
    named = os.environ.get("OTEL_SERVICE_NAME") or service
    return Resource.create({SERVICE_NAME: named})


def has_meters() -> bool:
    """Whether somebody has set a provider of metrics."""
    return isinstance(metrics.get_meter_provider(), MeterProvider)
