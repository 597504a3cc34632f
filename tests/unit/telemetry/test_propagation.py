"""Trace context that comes from strangers is bounded before it is read."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, trace
from telemetry_kit import TRACE, TRACEPARENT, calling, consuming, context, message, serving

from callcast.core.work import Kind, Work
from callcast.telemetry.propagation import (
    BAGGAGE_MAX_BYTES,
    BAGGAGE_MEMBERS_MAX,
    bounded,
    capped_baggage,
    extracted,
    incoming,
    injected,
    passed_on,
)


def test_a_message_carries_its_context_in_fields_and_its_baggage_in_a_header() -> None:
    work = consuming(message(traceparent=TRACEPARENT, tracestate="a=b", headers={"baggage": "k=v"}))
    assert incoming(work) == {"traceparent": TRACEPARENT, "tracestate": "a=b", "baggage": "k=v"}


def test_a_request_carries_its_context_in_headers() -> None:
    assert incoming(serving(traceparent=TRACEPARENT)) == {"traceparent": TRACEPARENT}
    assert incoming(calling()) == {}
    assert incoming(Work(Kind.SERVE, "x")) == {}


def test_what_is_injected_can_be_extracted() -> None:
    came = extracted({"traceparent": TRACEPARENT, "tracestate": "a=b", "baggage": "tenant=acme"})
    assert injected(came) == {
        "traceparent": TRACEPARENT,
        "tracestate": "a=b",
        "baggage": "tenant=acme",
    }
    assert trace.format_trace_id(trace.get_current_span(came).get_span_context().trace_id) == TRACE


@pytest.mark.parametrize("text", ["", "garbage", "00-0-0-00", f"ff-{TRACE}-b7ad6b7169203331-01"])
def test_a_broken_traceparent_is_no_context(text: str) -> None:
    came = extracted({"traceparent": text})
    assert not trace.get_current_span(came).get_span_context().is_valid


def test_no_headers_are_no_context() -> None:
    assert extracted({}) == {}


def test_baggage_is_cut_to_its_members() -> None:
    text = ",".join(f"k{n}=v" for n in range(1000))
    kept = capped_baggage(text).split(",")
    assert len(kept) == BAGGAGE_MEMBERS_MAX
    assert kept[0] == "k0=v"
    assert len(baggage.get_all(extracted({"baggage": text}))) == BAGGAGE_MEMBERS_MAX


def test_baggage_is_cut_to_its_bytes_at_a_member() -> None:
    text = ",".join(f"k{n}={'é' * 1000}" for n in range(10))
    kept = capped_baggage(text)
    assert len(kept.encode()) <= BAGGAGE_MAX_BYTES
    assert kept.split(",") == text.split(",")[:4]
    assert capped_baggage("x" * 100_000) == ""


def test_overlong_trace_headers_are_left_out() -> None:
    assert bounded({"traceparent": "0" * 129, "tracestate": "a" * 4097, "accept": "x"}) == {
        "accept": "x"
    }


def test_only_trace_headers_are_passed_on() -> None:
    came = context(traceparent=TRACEPARENT, authorization="secret", baggage="k=v")
    assert passed_on(came) == {"traceparent": TRACEPARENT, "baggage": "k=v"}
    assert passed_on(context(authorization="secret")) == {}
    assert passed_on(context()) == {}
    assert passed_on(None) == {}


def test_what_is_passed_on_has_its_bounds() -> None:
    long = ",".join(f"k{n}=v" for n in range(1000))
    assert len(passed_on(context(baggage=long))["baggage"].split(",")) == BAGGAGE_MEMBERS_MAX
    assert passed_on(context(traceparent="0" * 200)) == {}
