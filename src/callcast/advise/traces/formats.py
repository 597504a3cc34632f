"""Spans out of a part of an OTLP, Jaeger or Zipkin document: what each format calls things.

| format | what a part is               | source                                      |
|--------|------------------------------|---------------------------------------------|
| OTLP   | a resource with its spans    | opentelemetry-proto v1, its JSON mapping    |
| Jaeger | a trace with its processes   | the answer of ``/api/traces``               |
| Zipkin | a span                       | ``/api/v2`` of Zipkin                       |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct, field

from callcast.advise.model import Span

Value = str | int | float | bool
Kind = Literal["client", "server", "producer", "consumer", "internal"]

_KINDS: tuple[Kind, ...] = ("internal", "internal", "server", "client", "producer", "consumer")
"""By the number that OTLP gives them; 0 is not said."""
_BY_NAME: Mapping[str, Kind] = MappingProxyType({kind: kind for kind in _KINDS})
_NANO, _MICRO = 1e-9, 1e-6
_ERROR = 2


class _Any(Struct, rename="camel"):
    """An attribute's value in OTLP; lists and maps are left out."""

    string_value: str | None = None
    int_value: int | str | None = None
    double_value: float | None = None
    bool_value: bool | None = None


class _KeyValue(Struct):
    key: str
    value: _Any = field(default_factory=_Any)


class _OtlpLink(Struct, rename="camel"):
    trace_id: str = ""
    span_id: str = ""


class _Status(Struct):
    code: int | str = 0


class _OtlpSpan(Struct, rename="camel"):
    trace_id: str
    span_id: str
    name: str
    start_time_unix_nano: int | str
    end_time_unix_nano: int | str
    parent_span_id: str = ""
    kind: int | str = 0
    attributes: list[_KeyValue] = []
    status: _Status = field(default_factory=_Status)
    links: list[_OtlpLink] = []


class _Scope(Struct):
    spans: list[msgspec.Raw] = []


class _Resource(Struct):
    attributes: list[_KeyValue] = []


class _OtlpPart(Struct, rename="camel"):
    scope_spans: list[_Scope] = []
    instrumentation_library_spans: list[_Scope] = []
    """As it was called before version 0.19 of the protocol."""
    resource: _Resource = field(default_factory=_Resource)


class _Tag(Struct):
    key: str
    value: Value | None = None


class _Reference(Struct):
    refType: str = "CHILD_OF"  # noqa: N815 - as Jaeger writes it
    traceID: str = ""  # noqa: N815
    spanID: str = ""  # noqa: N815


class _JaegerSpan(Struct):
    traceID: str  # noqa: N815
    spanID: str  # noqa: N815
    operationName: str  # noqa: N815
    startTime: int  # noqa: N815
    duration: int
    references: list[_Reference] = []
    tags: list[_Tag] = []
    processID: str = ""  # noqa: N815


class _Process(Struct):
    serviceName: str = ""  # noqa: N815


class _JaegerPart(Struct):
    spans: list[msgspec.Raw]
    processes: dict[str, _Process] = {}


class _Endpoint(Struct, rename="camel"):
    service_name: str = ""
    ipv4: str = ""


class _ZipkinSpan(Struct, rename="camel"):
    trace_id: str
    id: str
    timestamp: int
    duration: int = 0
    name: str = ""
    parent_id: str = ""
    kind: str = ""
    shared: bool = False
    local_endpoint: _Endpoint = field(default_factory=_Endpoint)
    remote_endpoint: _Endpoint = field(default_factory=_Endpoint)
    tags: dict[str, str] = {}


Counted = Callable[[str], None]
"""Told the reason for each span that is left out."""


def spans_of(part: bytes, drop: Counted) -> Iterator[Span]:
    """The spans of a part, whichever format it is in; what is none is counted by its reason."""
    for read in (_otlp, _jaeger, _zipkin):
        found = read(part, drop)
        if found is not None:
            yield from found
            return
    drop("neither OTLP nor Jaeger nor Zipkin")


def _otlp(part: bytes, drop: Counted) -> Iterator[Span] | None:
    if b'copeSpans"' not in part and b'instrumentationLibrarySpans"' not in part:
        return None
    try:
        whole = msgspec.json.decode(part, type=_OtlpPart)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _none(drop, "a resource of OTLP that is not as it should be")
    said = _attributes(whole.resource.attributes)
    service = str(said.get("service.name", "unknown"))
    scopes = [*whole.scope_spans, *whole.instrumentation_library_spans]
    return _each(
        (raw for scope in scopes for raw in scope.spans), drop, lambda raw: _of_otlp(raw, service)
    )


def _of_otlp(raw: msgspec.Raw, service: str) -> Span:
    one = msgspec.json.decode(raw, type=_OtlpSpan)
    began, ended = int(one.start_time_unix_nano), int(one.end_time_unix_nano)
    return Span(
        trace_id=one.trace_id.lower(),
        span_id=one.span_id.lower(),
        parent_id=one.parent_span_id.lower(),
        service=service,
        name=one.name,
        kind=_kind(one.kind),
        start=began * _NANO,
        took=max(0, ended - began) * _NANO,
        is_error=one.status.code in {_ERROR, "STATUS_CODE_ERROR"},
        attributes=_attributes(one.attributes),
        links=tuple((link.trace_id.lower(), link.span_id.lower()) for link in one.links),
    )


def _kind(said: int | str) -> Kind:
    if isinstance(said, int):
        return _KINDS[said] if 0 <= said < len(_KINDS) else "internal"
    return _BY_NAME.get(said.removeprefix("SPAN_KIND_").lower(), "internal")


def _attributes(pairs: list[_KeyValue]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in pairs:
        value = pair.value
        if value.int_value is not None:
            found[pair.key] = int(value.int_value)
            continue
        for each in (value.string_value, value.bool_value, value.double_value):
            if each is not None:
                found[pair.key] = each
    return found


def _jaeger(part: bytes, drop: Counted) -> Iterator[Span] | None:
    if b'"spans"' not in part or b'"processes"' not in part:
        return None
    try:
        whole = msgspec.json.decode(part, type=_JaegerPart)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _none(drop, "a trace of Jaeger that is not as it should be")
    return _each(whole.spans, drop, lambda raw: _of_jaeger(raw, whole.processes))


def _of_jaeger(raw: msgspec.Raw, processes: Mapping[str, _Process]) -> Span:
    one = msgspec.json.decode(raw, type=_JaegerSpan)
    tags = {tag.key: tag.value for tag in one.tags if tag.value is not None}
    parents = [each for each in one.references if each.refType == "CHILD_OF"]
    parent = next((each.spanID for each in parents if each.traceID == one.traceID), "")
    process = processes.get(one.processID)
    return Span(
        trace_id=one.traceID.lower(),
        span_id=one.spanID.lower(),
        parent_id=parent.lower(),
        service=(process.serviceName if process else "") or "unknown",
        name=one.operationName,
        kind=_kind(str(tags.pop("span.kind", ""))),
        start=one.startTime * _MICRO,
        took=max(0, one.duration) * _MICRO,
        is_error=str(tags.get("error", "")).lower() == "true",
        attributes=tags,
        links=tuple(
            (each.traceID.lower(), each.spanID.lower())
            for each in one.references
            if each.refType != "CHILD_OF" or each.traceID != one.traceID
        ),
    )


def _zipkin(part: bytes, drop: Counted) -> Iterator[Span] | None:
    if b'"traceId"' not in part or b'"id"' not in part:
        return None
    return _each([msgspec.Raw(part)], drop, _of_zipkin)


def _of_zipkin(raw: msgspec.Raw) -> Span:
    one = msgspec.json.decode(raw, type=_ZipkinSpan)
    attributes: dict[str, Value] = dict(one.tags)
    if one.remote_endpoint.service_name:
        attributes.setdefault("peer.service", one.remote_endpoint.service_name)
    kind = _kind(one.kind)
    # A server that shares its client's span has the same id: it is a child all the same.
    is_shared = one.shared and kind == "server"
    return Span(
        trace_id=one.trace_id.lower(),
        span_id=f"{one.id.lower()}-server" if is_shared else one.id.lower(),
        parent_id=one.id.lower() if is_shared else one.parent_id.lower(),
        service=one.local_endpoint.service_name or "unknown",
        name=one.name,
        kind=kind,
        start=one.timestamp * _MICRO,
        took=max(0, one.duration) * _MICRO,
        is_error="error" in one.tags,
        attributes=attributes,
    )


def _each(
    raws: Iterator[msgspec.Raw] | list[msgspec.Raw],
    drop: Counted,
    read: Callable[[msgspec.Raw], Span],
) -> Iterator[Span]:
    """Span by span, so that a bad one takes none of its neighbours along."""
    for raw in raws:
        try:
            span = read(raw)
        except (ValueError, OverflowError):  # msgspec's errors are ValueErrors too
            drop("a span that is not as it should be")
            continue
        if not span.trace_id or not span.span_id:
            drop("a span without an id")
            continue
        yield span


def _none(drop: Counted, reason: str) -> Iterator[Span]:
    drop(reason)
    return iter(())
