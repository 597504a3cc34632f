"""What OpenTelemetry calls the broker behind a URL."""

from __future__ import annotations

import pytest
from opentelemetry import metrics, trace
from telemetry_kit import Watched, publishing

from callcast.runtime.system import system_ports


@pytest.mark.parametrize(
    ("url", "system"),
    [
        ("sqlite:///shop.db", "sqlite"),
        ("amqp://guest:guest@localhost/", "rabbitmq"),
        ("amqps://one/shop,amqps://two/shop", "rabbitmq"),
        ("kafka://localhost:9092", "kafka"),
        ("kafkas://localhost:9092", "kafka"),
        ("postgres://localhost/shop", "postgresql"),
        ("rediss://localhost/", "redis"),
    ],
)
def test_a_system_is_called_as_the_conventions_call_it(
    url: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: watched.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: watched.meters)
    observer = system_ports(url).observer
    assert observer.is_tracing
    observer.begin(publishing()).end()
    observer.measure(publishing(), 0.1, None)
    attributes = watched.span.attributes
    assert attributes is not None
    assert attributes["messaging.system"] == system
    [labels] = watched.points("messaging.client.sent.messages")
    assert ("messaging.system", system) in labels
