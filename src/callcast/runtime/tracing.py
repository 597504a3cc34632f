"""Where spans are sent: one setting, for programs that set up no OpenTelemetry SDK themselves.

| ``CALLCAST_TRACES``       | spans go                                                  |
|---------------------------|-----------------------------------------------------------|
| ``otlp://HOST[:4318]``    | to an OTLP receiver over HTTP: a collector, Jaeger, Tempo |
| ``otlps://HOST[:4318]``   | the same over TLS                                         |
| ``zipkin://HOST[:9411]``  | to Zipkin, as its JSON                                    |
| not set                   | where the standard ``OTEL_EXPORTER_OTLP_*`` variables say |
| ``off``, or neither       | nowhere, unless the program has a provider of its own     |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from callcast.core.errors import Misuse

PORTS = {"otlp": 4318, "otlps": 4318, "zipkin": 9411}
PATHS = {"otlp": "/v1/traces", "otlps": "/v1/traces", "zipkin": "/api/v2/spans"}


STANDARD = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables of OpenTelemetry that say where spans go; its exporter reads them itself."""


class Target(Struct, frozen=True):
    """Where spans go, and in which format."""

    form: Literal["otlp", "zipkin"]
    endpoint: str
    """Empty is where OpenTelemetry's own variables say."""


def target_of(traces: str | None, environ: Mapping[str, str] = os.environ) -> Target | None:
    """What the setting says; None for none. Raises `Misuse` for what is no address."""
    said = (traces or "").strip()
    if not said and any(environ.get(name) for name in STANDARD):
        is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        is_off = is_off or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
        return None if is_off else Target("otlp", "")
    if said.lower() in {"", "off"}:
        return None
    try:
        parts = urlsplit(said)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Misuse(f"traces={traces!r}: {error}") from error
    if parts.scheme not in PORTS or not host:
        raise Misuse(
            f"traces={traces!r}: write otlp://HOST:4318, otlps://HOST:4318, zipkin://HOST:9411"
            " or off"
        )
    name = f"[{host}]" if ":" in host else host
    scheme = "https" if parts.scheme == "otlps" else "http"
    path = parts.path.rstrip("/") or PATHS[parts.scheme]
    endpoint = f"{scheme}://{name}:{port or PORTS[parts.scheme]}{path}"
    return Target("zipkin" if parts.scheme == "zipkin" else "otlp", endpoint)
