"""CloudEvents in structured mode, as other SDKs write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from callcast.core.structured import Structured, is_structured, parse

ATTRIBUTES = {"id": "a1", "source": "/orders", "type": "placed", "specversion": "1.0"}
MOMENT = datetime(2026, 11, 23, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content_type", "data", "bytes_"),
    [
        ("application/json", {"sku": "tea", "n": 1}, b'{"sku": "tea", "n": 1}'),
        ("application/vnd.acme+json", "tea", b'"tea"'),
        ("text/plain; charset=utf-8", "Euro €", "Euro €".encode()),
        ("application/octet-stream", b"\x00\xff", b"\x00\xff"),
        ("application/json", None, b""),
    ],
)
def test_what_the_sdk_writes_is_read(content_type: str, data: object, bytes_: bytes) -> None:
    said = {**ATTRIBUTES, "time": MOMENT, "datacontenttype": content_type}
    found = parse(JSONFormat().write(CloudEvent(said, data)))  # type: ignore[arg-type]
    attributes = {**ATTRIBUTES, "time": "2026-11-23T09:00:00Z"}
    assert found == Structured(attributes, content_type, bytes_)


def test_attributes_that_are_no_strings_are_text() -> None:
    event = json.dumps({**ATTRIBUTES, "tries": 3, "dry": True, "subject": None})
    attributes = {**ATTRIBUTES, "tries": "3", "dry": "true"}
    assert parse(event.encode()) == Structured(attributes, "application/json", b"")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"no JSON", b'{"data_base64": "?"}', b'{"data": '),
        *(json.dumps({**ATTRIBUTES, name: None}).encode() for name in ATTRIBUTES),
        b'{"sku": "tea"}',
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_event_is_none(body: bytes) -> None:
    assert parse(body) is None


@pytest.mark.parametrize(
    ("content_type", "is_one"),
    [
        ("application/cloudevents+json", True),
        ("application/cloudevents+json; charset=utf-8", True),
        ("application/CloudEvents+JSON", True),
        ("application/cloudevents-batch+json", False),
        ("application/json", False),
        (None, False),
    ],
)
def test_the_content_type_says_so(content_type: str | None, is_one: bool) -> None:
    assert is_structured(content_type) is is_one
