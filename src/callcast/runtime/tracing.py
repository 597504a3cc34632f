"""Where spans are sent: one setting, for programs that set up no OpenTelemetry SDK themselves.

| ``CALLCAST_TRACES``       | spans go                                                  |
|---------------------------|-----------------------------------------------------------|
| ``otlp://HOST[:4318]``    | to an OTLP receiver over HTTP: a collector, Jaeger, Tempo |
| ``otlps://HOST[:4318]``   | the same over TLS                                         |
| ``zipkin://HOST[:9411]``  | to Zipkin, as its JSON                                    |
| ``off``, or not set       | nowhere, unless the program has a provider of its own     |
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from callcast.core.errors import Misuse

PORTS = {"otlp": 4318, "otlps": 4318, "zipkin": 9411}
PATHS = {"otlp": "/v1/traces", "otlps": "/v1/traces", "zipkin": "/api/v2/spans"}


class Target(Struct, frozen=True):
    """Where spans go, and in which format."""

    form: Literal["otlp", "zipkin"]
    endpoint: str


def target_of(traces: str | None) -> Target | None:
    """What the setting says; None for none. Raises `Misuse` for what is no address."""
    said = (traces or "").strip()
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
