"""The setting that says where spans are sent."""

from __future__ import annotations

import pytest

from callcast.core.errors import Misuse
from callcast.runtime.tracing import Target, target_of


@pytest.mark.parametrize(
    ("said", "target"),
    [
        (None, None),
        ("", None),
        ("OFF", None),
        ("otlp://jaeger", Target("otlp", "http://jaeger:4318/v1/traces")),
        ("otlp://jaeger:9/x/", Target("otlp", "http://jaeger:9/x")),
        ("otlps://c.example:443", Target("otlp", "https://c.example:443/v1/traces")),
        ("zipkin://[::1]", Target("zipkin", "http://[::1]:9411/api/v2/spans")),
    ],
)
def test_an_address_is_what_it_says(said: str | None, target: Target | None) -> None:
    assert target_of(said, {}) == target


@pytest.mark.parametrize(
    ("more", "target"),
    [
        ({}, Target("otlp", "")),
        ({"OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_where_it_is_not_set_the_standard_variables_count(
    more: dict[str, str], target: Target | None
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **more}
    assert target_of(None, environ) == target
    assert target_of("off", environ) is None


@pytest.mark.parametrize("said", ["jaeger:4318", "http://x", "otlp://", "zipkin://x:port"])
def test_what_is_no_address_is_misuse(said: str) -> None:
    with pytest.raises(Misuse, match="traces="):
        target_of(said)
