"""Spans to Zipkin, as its JSON."""

from __future__ import annotations

from opentelemetry.exporter.zipkin.json import (  # pyright: ignore[reportMissingTypeStubs] - it has none
    ZipkinExporter,
)
from opentelemetry.sdk.trace.export import SpanExporter


def exporter(endpoint: str) -> SpanExporter:
    """Sends to this address, which ends in ``/api/v2/spans``."""
    return ZipkinExporter(endpoint=endpoint)
