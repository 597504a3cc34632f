"""Traces of any system: read from the formats of OTLP, Jaeger and Zipkin, and put together."""
