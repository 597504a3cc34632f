"""Traces as OpenTelemetry's own SDK and encoder write them, of a program without callcast."""

from __future__ import annotations

import json

from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

from callcast.advise.model import Edge, Verb
from callcast.advise.traces.measuring import measured
from callcast.advise.traces.reading import Reading


def written() -> str:
    """A shop asks its bank, whose database fails, and tells the mail by a queue, over a link."""
    kept = InMemorySpanExporter()
    of = {}
    for service in ("shop", "bank", "mail"):
        provider = TracerProvider(resource=Resource({"service.name": service}))
        provider.add_span_processor(SimpleSpanProcessor(kept))
        of[service] = provider.get_tracer("x")
    page = of["shop"].start_span("POST /orders", kind=SpanKind.SERVER)
    below = set_span_in_context(page)
    asks = of["shop"].start_span("GET", below, kind=SpanKind.CLIENT)
    bank = of["bank"].start_span(
        "GET /charge", set_span_in_context(asks), kind=SpanKind.SERVER,
        attributes={"http.request.method": "GET", "http.route": "/charge"},
    )  # fmt: skip
    query = of["bank"].start_span(
        "SELECT", set_span_in_context(bank), kind=SpanKind.CLIENT,
        attributes={"db.system.name": "postgresql", "db.response.returned_rows": 3},
    )  # fmt: skip
    query.set_status(Status(StatusCode.ERROR))
    about = {"messaging.system": "kafka", "messaging.destination.name": "placed"}
    tells = of["shop"].start_span("send placed", below, kind=SpanKind.PRODUCER, attributes=about)
    mails = of["mail"].start_span(
        "process placed", kind=SpanKind.CONSUMER, links=[Link(tells.get_span_context())],
        attributes={**about, "messaging.consumer.group.name": "mailers"},
    )  # fmt: skip
    for span in (mails, tells, query, bank, asks, page):
        span.end()
    return MessageToJson(encode_spans(kept.get_finished_spans()))


def test_what_the_sdk_encodes_is_understood() -> None:
    reading = Reading([written().encode()], "x")
    system = measured(reading)
    assert {str(edge): about.verb for edge, about in system.interactions.items()} == {
        "shop->bank:GET /charge": Verb.CALL,
        "bank->postgresql:SELECT": Verb.CALL,
        "shop->mailers:placed": Verb.CAST,
    }
    query = system.interactions[Edge("bank", "postgresql", "SELECT")].measured
    assert query is not None
    assert (query.count, query.errors) == (1, 1)
    assert reading.dropped == system.dropped == {}


def test_ids_in_hex_as_the_protocol_wants_them_are_the_same_ids() -> None:
    document = json.loads(written())
    own = [span.span_id for span in Reading([json.dumps(document).encode()], "x")]
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                span["spanId"] = own.pop(0).zfill(16)
                own.append(span["spanId"])
    again = [span.span_id for span in Reading([json.dumps(document).encode()], "x")]
    assert [each.lstrip("0") for each in own] == again
