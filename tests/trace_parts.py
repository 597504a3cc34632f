"""Traces of a shop that never heard of callcast, and the three formats that they are written in."""

from __future__ import annotations

import json
from collections.abc import Iterable

from callcast.advise.model import Span

BEGAN = 1_700_000_000.0
KINDS = ("internal", "server", "client", "producer", "consumer")


class Trace:
    """Spans of one trace, by short names."""

    def __init__(self, number: int = 0, began: float = BEGAN) -> None:
        self.id = f"{number:032x}"
        self._began = began + number
        self._number = number
        self.spans: list[Span] = []

    def span(
        self,
        name: str,
        service: str,
        kind: str = "internal",
        *,
        under: Span | None = None,
        at: float = 0.0,
        took: float = 0.01,
        error: bool = False,
        links: tuple[tuple[str, str], ...] = (),
        **attributes: str | int,
    ) -> Span:
        span = Span(
            trace_id=self.id,
            span_id=f"{self._number * 1000 + len(self.spans) + 1:016x}",
            parent_id="" if under is None else under.span_id,
            service=service,
            name=name,
            kind=kind,  # type: ignore[arg-type]
            start=self._began + at,
            took=took,
            is_error=error,
            attributes={key.replace("__", "."): value for key, value in attributes.items()},
            links=links,
        )
        self.spans.append(span)
        return span

    def call(
        self, above: Span, service: str, route: str, *, at: float, took: float, error: bool = False
    ) -> Span:
        """An attempt and, below it, what serves it."""
        client = self.span(
            "GET", above.service, "client", under=above, at=at, took=took, error=error
        )
        return self.span(
            f"GET {route}", service, "server", under=client, at=at + 0.001, took=took - 0.002,
            error=error, http__request__method="GET", http__route=route,
        )  # fmt: skip


def order(number: int, *, fails: bool = False) -> list[Span]:
    """A page asks the shop, which asks stock and bank, side by side, and tells of the order."""
    trace = Trace(number)
    page = trace.span(
        "POST /orders", "shop", "server", took=0.2, error=fails,
        http__request__method="POST", http__route="/orders",
    )  # fmt: skip
    trace.call(page, "stock", "/stock", at=0.01, took=0.03)
    bank = trace.call(page, "bank", "/charge", at=0.02, took=0.05, error=fails)
    trace.span("SELECT", "bank", "client", under=bank, at=0.03, took=0.01, db__system="postgresql")
    told = trace.span(
        "placed publish", "shop", "producer", under=page, at=0.1, took=0.004,
        messaging__destination__name="placed", messaging__operation__type="publish",
    )  # fmt: skip
    for service in ("mail", "parcels"):
        trace.span(
            "placed process", service, "consumer", under=told, at=0.15, took=0.02,
            messaging__destination__name="placed", messaging__operation__type="process",
        )  # fmt: skip
    return trace.spans


def otlp(spans: Iterable[Span]) -> bytes:
    """As the collector writes it."""
    resources: dict[str, list[object]] = {}
    for span in spans:
        resources.setdefault(span.service, []).append(
            {
                "traceId": span.trace_id,
                "spanId": span.span_id,
                "parentSpanId": span.parent_id,
                "name": span.name,
                "kind": 1 + KINDS.index(span.kind),
                "startTimeUnixNano": str(round(span.start * 1e9)),
                "endTimeUnixNano": str(round((span.start + span.took) * 1e9)),
                "attributes": [otlp_attribute(*each) for each in span.attributes.items()],
                "status": {"code": 2} if span.is_error else {},
                "links": [{"traceId": trace, "spanId": one} for trace, one in span.links],
            }
        )
    whole = {
        "resourceSpans": [
            {
                "resource": {"attributes": [otlp_attribute("service.name", service)]},
                "scopeSpans": [{"scope": {"name": "x"}, "spans": found}],
            }
            for service, found in resources.items()
        ]
    }
    return json.dumps(whole).encode()


def otlp_attribute(key: str, value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"key": key, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    return {"key": key, "value": {"stringValue": value}}


def jaeger(spans: Iterable[Span]) -> bytes:
    """As its API answers."""
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    return json.dumps(
        {
            "data": [
                {
                    "traceID": trace,
                    "spans": [jaeger_span(span) for span in found],
                    "processes": {s.service: {"serviceName": s.service} for s in found},
                }
                for trace, found in by_trace.items()
            ],
            "errors": None,
        }
    ).encode()


def jaeger_span(span: Span) -> dict[str, object]:
    tags: list[dict[str, object]] = [
        {"key": key, "type": "string", "value": value} for key, value in span.attributes.items()
    ]
    tags.append({"key": "span.kind", "type": "string", "value": span.kind})
    if span.is_error:
        tags.append({"key": "error", "type": "bool", "value": True})
    references = [
        {"refType": "FOLLOWS_FROM", "traceID": trace, "spanID": one} for trace, one in span.links
    ]
    if span.parent_id:
        references.append(
            {"refType": "CHILD_OF", "traceID": span.trace_id, "spanID": span.parent_id}
        )
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "operationName": span.name,
        "references": references,
        "startTime": round(span.start * 1e6),
        "duration": round(span.took * 1e6),
        "tags": tags,
        "processID": span.service,
    }


def zipkin(spans: Iterable[Span]) -> bytes:
    """As its API answers for several traces."""
    found: dict[str, list[object]] = {}
    for span in spans:
        one: dict[str, object] = {
            "traceId": span.trace_id,
            "id": span.span_id,
            "name": span.name,
            "timestamp": round(span.start * 1e6),
            "duration": round(span.took * 1e6),
            "localEndpoint": {"serviceName": span.service},
            "tags": {
                **{key: str(value) for key, value in span.attributes.items()},
                **({"error": "true"} if span.is_error else {}),
            },
        }
        if span.parent_id:
            one["parentId"] = span.parent_id
        if span.kind != "internal":
            one["kind"] = span.kind.upper()
        found.setdefault(span.trace_id, []).append(one)
    return json.dumps(list(found.values())).encode()
