"""Spans out of a part of an OTLP, Jaeger or Zipkin document: what each format calls things.

| format | what a part is               | source                                      |
|--------|------------------------------|---------------------------------------------|
| OTLP   | a resource with its spans    | opentelemetry-proto v1, its JSON mapping    |
| Jaeger | a trace with its processes   | the answer of ``/api/traces``               |
| Zipkin | a span                       | ``/api/v2`` of Zipkin                       |
"""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from callcast.advise.model import Span

Value = str | int | float | bool
Kind = Literal["client", "server", "producer", "consumer", "internal"]

_KINDS: tuple[Kind, ...] = ("internal", "internal", "server", "client", "producer", "consumer")
"""By the number that OTLP gives them; 0 is not said."""
_BY_NAME: Mapping[str, Kind] = MappingProxyType({kind: kind for kind in _KINDS})
_NANO, _MICRO = 1e-9, 1e-6
_ERROR = 2
_UNTIL = 1e10
"""Seconds since the epoch (the year 2286): a clock that says more says nothing."""
_BASE64 = (12, 24)
"""Characters of a span's and of a trace's id where a writer of protobuf's JSON left them so."""
_UNREADABLE = (ValueError, OverflowError, RecursionError)
"""What damaged text raises; msgspec's errors are ValueErrors."""


class _Any(Struct, rename="camel"):
    """An attribute's value in OTLP; lists and maps are left out."""

    string_value: object = None
    int_value: object = None
    double_value: object = None
    bool_value: object = None


class _KeyValue(Struct):
    key: str
    value: _Any | None = None


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
    parent_span_id: str | None = ""
    kind: int | str | None = 0
    attributes: list[_KeyValue] | None = None
    status: _Status | None = None
    links: list[_OtlpLink] | None = None


class _Scope(Struct):
    spans: list[msgspec.Raw] | None = None


class _Resource(Struct):
    attributes: list[_KeyValue] | None = None


class _OtlpPart(Struct, rename="camel"):
    scope_spans: list[_Scope] | None = None
    instrumentation_library_spans: list[_Scope] | None = None
    """As it was called before version 0.19 of the protocol."""
    resource: _Resource | None = None


def _as_jaeger(name: str) -> str:
    """Its spelling of a field's name: trace_id is traceID."""
    first, *rest = name.split("_")
    return first + "".join("ID" if each == "id" else each.title() for each in rest)


class _Tag(Struct):
    key: str
    value: object = None


class _Reference(Struct, rename=_as_jaeger):
    ref_type: str = "CHILD_OF"
    trace_id: str = ""
    span_id: str = ""


class _JaegerSpan(Struct, rename=_as_jaeger):
    trace_id: str
    span_id: str
    operation_name: str
    start_time: float
    duration: float
    references: list[_Reference] | None = None
    tags: list[_Tag] | None = None
    process_id: str | None = ""
    parent_span_id: str | None = ""
    """In place of references, as older ones write it."""


class _Process(Struct, rename=_as_jaeger):
    service_name: str | None = ""


class _JaegerPart(Struct):
    spans: list[msgspec.Raw] | None
    processes: dict[str, _Process] | None = None


class _Endpoint(Struct, rename="camel"):
    service_name: str | None = ""
    ipv4: str | None = ""


class _ZipkinSpan(Struct, rename="camel"):
    trace_id: str
    id: str
    timestamp: float
    duration: float | None = 0
    name: str | None = ""
    parent_id: str | None = ""
    kind: str | None = ""
    shared: bool | None = False
    local_endpoint: _Endpoint | None = None
    remote_endpoint: _Endpoint | None = None
    tags: dict[str, object] | None = None


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
    except _UNREADABLE:
        return _none(drop, "a resource of OTLP that is not as it should be")
    said = _attributes(whole.resource.attributes if whole.resource else ())
    service = str(said.get("service.name") or "unknown")
    scopes = [*(whole.scope_spans or ()), *(whole.instrumentation_library_spans or ())]
    raws = (raw for scope in scopes for raw in scope.spans or ())
    return _each(raws, drop, lambda raw: _of_otlp(raw, service))


def _of_otlp(raw: msgspec.Raw, service: str) -> Span:
    one = msgspec.json.decode(raw, type=_OtlpSpan)
    began, ended = int(one.start_time_unix_nano), int(one.end_time_unix_nano)
    return Span(
        trace_id=_id(one.trace_id),
        span_id=_id(one.span_id),
        parent_id=_id(one.parent_span_id, is_parent=True),
        service=service,
        name=one.name,
        kind=_kind(one.kind or 0),
        start=began * _NANO,
        took=max(0, ended - began) * _NANO,
        is_error=one.status is not None and one.status.code in {_ERROR, "STATUS_CODE_ERROR"},
        attributes=_attributes(one.attributes or ()),
        links=tuple((_id(link.trace_id), _id(link.span_id)) for link in one.links or ()),
    )


def _id(said: str | None, *, is_parent: bool = False) -> str:
    """One spelling for all formats: some leave zeros in front away; a parent of zeros is none."""
    text = said or ""
    if len(text) in _BASE64 and text.endswith("="):
        with suppress(NotBase64):  # then it is an id like any other
            text = a2b_base64(text, strict_mode=True).hex()
    short = text.lower().lstrip("0")
    return short or ("" if is_parent else text[:1])


def _kind(said: int | str) -> Kind:
    if isinstance(said, int):
        return _KINDS[said] if 0 <= said < len(_KINDS) else "internal"
    return _BY_NAME.get(said.removeprefix("SPAN_KIND_").lower(), "internal")


def _attributes(pairs: Sequence[_KeyValue] | None) -> dict[str, Value]:
    """Those of one value; a damaged one takes no other along."""
    found: dict[str, Value] = {}
    for pair in pairs or ():
        value = pair.value or _Any()
        whole = value.int_value  # 64 bits, written as text
        if isinstance(whole, str) and whole.removeprefix("-").isdecimal() and len(whole) <= 20:
            whole = int(whole)
        for each in (value.string_value, value.bool_value, whole, value.double_value):
            if isinstance(each, Value):
                found[pair.key] = each
    return found


def _jaeger(part: bytes, drop: Counted) -> Iterator[Span] | None:
    if b'"spans"' not in part or b'"processes"' not in part:
        return None
    try:
        whole = msgspec.json.decode(part, type=_JaegerPart)
    except _UNREADABLE:
        return _none(drop, "a trace of Jaeger that is not as it should be")
    processes = whole.processes or {}
    return _each(whole.spans or [], drop, lambda raw: _of_jaeger(raw, processes))


def _of_jaeger(raw: msgspec.Raw, processes: Mapping[str, _Process]) -> Span:
    one = msgspec.json.decode(raw, type=_JaegerSpan)
    tags = {tag.key: tag.value for tag in one.tags or () if isinstance(tag.value, Value)}
    references = one.references or []
    parents = [each for each in references if _is_parent(each, one)]
    process = processes.get(one.process_id or "")
    return Span(
        trace_id=_id(one.trace_id),
        span_id=_id(one.span_id),
        parent_id=_id(parents[0].span_id if parents else one.parent_span_id, is_parent=True),
        service=(process.service_name if process else "") or "unknown",
        name=one.operation_name,
        kind=_kind(str(tags.pop("span.kind", ""))),
        start=one.start_time * _MICRO,
        took=max(0, one.duration) * _MICRO,
        is_error=str(tags.get("error", "")).lower() == "true",
        attributes=tags,
        links=tuple(
            (_id(each.trace_id), _id(each.span_id))
            for each in references
            if not _is_parent(each, one)
        ),
    )


def _is_parent(reference: _Reference, of: _JaegerSpan) -> bool:
    return reference.ref_type == "CHILD_OF" and reference.trace_id == of.trace_id


def _zipkin(part: bytes, drop: Counted) -> Iterator[Span] | None:
    if b'"traceId"' not in part or b'"id"' not in part:
        return None
    return _each([msgspec.Raw(part)], drop, _of_zipkin)


def _of_zipkin(raw: msgspec.Raw) -> Span:
    one = msgspec.json.decode(raw, type=_ZipkinSpan)
    tags = one.tags or {}
    attributes = {key: value for key, value in tags.items() if isinstance(value, Value)}
    remote = one.remote_endpoint.service_name if one.remote_endpoint else ""
    if remote:
        attributes.setdefault("peer.service", remote)
    kind = _kind(one.kind or "")
    own = _id(one.id)
    # A server that shares its client's span has the same id: it is a child all the same.
    is_shared = one.shared and kind == "server"
    return Span(
        trace_id=_id(one.trace_id),
        span_id=f"{own}-server" if is_shared else own,
        parent_id=own if is_shared else _id(one.parent_id, is_parent=True),
        service=(one.local_endpoint.service_name if one.local_endpoint else "") or "unknown",
        name=one.name or "",
        kind=kind,
        start=one.timestamp * _MICRO,
        took=max(0, one.duration or 0) * _MICRO,
        is_error="error" in tags,
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
        except _UNREADABLE:
            drop("a span that is not as it should be")
            continue
        if not span.trace_id or not span.span_id:
            drop("a span without an id")
        elif not (0 < span.start < _UNTIL and span.took < _UNTIL):
            drop("a span at a time that cannot be")
        else:
            yield span


def _none(drop: Counted, reason: str) -> Iterator[Span]:
    drop(reason)
    return iter(())
