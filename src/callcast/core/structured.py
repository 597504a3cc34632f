"""CloudEvents in structured mode: one JSON text with the attributes and the data of an event."""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import NamedTuple

import msgspec

CONTENT_TYPE = "application/cloudevents+json"
JSON = "application/json"
CONTENT_TYPES_KEPT = 64
"""Asked for each message that comes; a program sees a few of them."""

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Structured(NamedTuple):
    """An event taken apart."""

    attributes: dict[str, str]
    """All but the data and its type, as text."""
    content_type: str
    data: bytes
    """JSON as it was written; what is no JSON as its bytes."""


@lru_cache(CONTENT_TYPES_KEPT)
def is_structured(content_type: str | None) -> bool:
    """Whether a body of this type is a whole event."""
    return content_type is not None and content_type.partition(";")[0].strip() == CONTENT_TYPE


def parse(body: bytes) -> Structured | None:
    """The event of such a body; None when it is none."""
    try:
        members = _MEMBERS.decode(body)
        data, encoded = members.pop("data", None), members.pop("data_base64", None)
        attributes = {name: _text(bytes(raw)) for name, raw in members.items()}
        content_type = attributes.pop("datacontenttype", JSON)
        if encoded is not None:
            found = base64.b64decode(msgspec.json.decode(encoded, type=str), validate=True)
        elif data is None:
            found = b""
        else:
            found = _data(bytes(data), content_type)
    except (msgspec.DecodeError, binascii.Error):
        return None
    return Structured(attributes, content_type, found)


def _data(raw: bytes, content_type: str) -> bytes:
    """JSON stands there as it is; other text is a JSON string."""
    subtype = content_type.partition(";")[0].strip().lower().partition("/")[2]
    if subtype == "json" or subtype.endswith("+json") or not raw.startswith(b'"'):
        return raw
    return msgspec.json.decode(raw, type=str).encode()


def _text(raw: bytes) -> str:
    """Attributes are strings, integers and booleans."""
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()
