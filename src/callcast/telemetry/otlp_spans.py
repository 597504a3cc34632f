"""Spans to an OTLP receiver over HTTP."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter


def exporter(endpoint: str) -> SpanExporter:
    """Sends to this address, whose path is that of the traces; empty is where the variables say."""
    return OTLPSpanExporter(endpoint=endpoint or None)
