"""The SDK that callcast sets up itself, in programs of their own: a process has one provider."""

from __future__ import annotations

import os
import subprocess
import sys
from time import monotonic

BEGIN = """
import time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from callcast.telemetry import sdk

class Told(SpanExporter):
    def export(self, spans):
        for span in spans:
            print(span.name, span.resource.attributes["service.name"], flush=True)
        return SpanExportResult.SUCCESS

class Deaf(SpanExporter):
    def export(self, spans):
        time.sleep(600)

def work(name):
    with trace.get_tracer("program").start_as_current_span(name):
        pass
"""


def told(program: str, **settings: str) -> list[str]:
    """What this program prints."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_spans_are_sent_when_the_bus_is_left_and_when_the_program_ends() -> None:
    program = """
sdk.trace_to(Told(), "orders")
work("first")
sdk.flush()
print("left")
work("second")
"""
    assert told(program) == ["first orders", "left", "second orders"]


def test_the_standard_variables_name_the_service_and_choose_the_sampler() -> None:
    program = 'sdk.trace_to(Told(), "orders"); work("first")'
    assert told(program, OTEL_SERVICE_NAME="shop") == ["first shop"]
    assert told(program, OTEL_TRACES_SAMPLER="always_off") == []


def test_a_provider_that_is_there_is_neither_replaced_nor_flushed() -> None:
    program = """
theirs = TracerProvider()
theirs.force_flush = lambda *_: print("flushed")
trace.set_tracer_provider(theirs)
sdk.trace_to(Told(), "orders")
work("first")
sdk.flush()
print(trace.get_tracer_provider() is theirs)
"""
    assert told(program) == ["True"]


def test_a_receiver_that_never_answers_keeps_no_program_from_ending() -> None:
    program = """
sdk.FLUSH_S = 0.05
sdk.trace_to(Deaf(), "orders")
work("first")
sdk.flush()
"""
    began = monotonic()
    assert told(program) == []
    assert monotonic() - began < 25, "the SDK's own limit is 30 s"
