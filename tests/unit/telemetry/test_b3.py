"""B3, for those who ask for it with ``OTEL_PROPAGATORS``: over HTTP, messages and the outbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import propagate, trace
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.textmap import TextMapPropagator
from telemetry_kit import TRACE, TRACEPARENT, consuming, message, serving

from callcast.core.work import Kind, Work
from callcast.runtime.sending import traced
from callcast.telemetry.propagation import creation, extracted, incoming, injected

PARENT = "b7ad6b7169203331"
OTHER = "1" * 32


@pytest.fixture(params=[B3SingleFormat, B3MultiFormat])
def b3(request: pytest.FixtureRequest) -> Iterator[None]:
    """B3 alone, in each of its forms."""
    before = propagate.get_global_textmap()
    form: type[TextMapPropagator] = request.param
    propagate.set_global_textmap(form())
    yield
    propagate.set_global_textmap(before)


def trace_of(context: object) -> str:
    span = trace.get_current_span(context)  # type: ignore[arg-type]
    return trace.format_trace_id(span.get_span_context().trace_id)


@pytest.mark.usefixtures("b3")
def test_a_message_carries_b3_through_the_outbox_to_its_handler() -> None:
    came = extracted(incoming(serving(b3=f"{TRACE}-{PARENT}-1")))
    stored = traced(message(), injected(came))
    assert stored.traceparent is None
    left = creation(Work(Kind.PUBLISH, "x", message=stored))
    assert trace_of(left) == TRACE
    assert trace_of(extracted(incoming(consuming(stored)))) == TRACE


@pytest.mark.usefixtures("b3")
def test_the_single_header_wins_over_the_others() -> None:
    several = {"x-b3-traceid": OTHER, "x-b3-spanid": PARENT, "x-b3-sampled": "1"}
    assert trace_of(extracted(several)) == OTHER
    assert trace_of(extracted({**several, "b3": f"{TRACE}-{PARENT}-1"})) == TRACE


def test_b3_is_not_read_unless_asked_for() -> None:
    assert trace_of(extracted({"b3": f"{OTHER}-{PARENT}-1", "traceparent": TRACEPARENT})) == TRACE
