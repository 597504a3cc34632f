"""Requests and answers by `HttpBinding`: a value to path, query and body, and back. Pure.

| request type                 | bound as                                                         |
|------------------------------|------------------------------------------------------------------|
| None                         | nothing is sent                                                  |
| any, no placeholder, a body  | the whole value is the body                                      |
| a scalar, one placeholder    | the placeholder                                                  |
| a type with fields           | placeholders by name; the rest is the query (GET, HEAD, DELETE)  |
|                              | or the body (POST, PUT, PATCH)                                   |

Anything else is `Misuse` when it is compiled. In the query lists repeat, None is left out and
booleans are ``true`` and ``false``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, quote, urlencode

from msgspec import Struct

from callcast.core.binding import HttpBinding
from callcast.core.contract import Operation
from callcast.core.errors import Misuse, Remote, Undecodable
from callcast.ports.codec import Codec
from callcast.transports.shapes import Field, fields_of, is_nothing, scalar_of

PATH_SAFE = "!$&'()*+,;=:@"
"""Of the characters that need no encoding in a path segment, those besides letters and digits."""
QUERY_FIELDS_MAX = 1_000
_EMPTY = b"null"  # what an empty body means


class Wire(Struct, frozen=True):
    """A request as it goes out."""

    target: str
    """Percent-encoded path and query, to be put behind the peer's URL."""
    body: bytes | None


class Shape(Protocol):
    """How the values of one request type are bound."""

    def write(self, value: object) -> Wire:
        """A value to path, query and body; raises `Misuse` for one that has no such form."""
        ...

    def read(self, params: Sequence[str], query: str, body: bytes) -> object:
        """Back; raises `Undecodable` naming the field. `params` are decoded, in order."""
        ...


class Exchange:
    """One operation over HTTP, compiled: what both sides know about its requests and answers."""

    def __init__(self, operation: Operation[Any, Any], codec: Codec) -> None:
        self.operation = operation
        self.binding: HttpBinding = operation.binding
        self.is_void: bool = is_nothing(operation.response)
        if self.binding.method == "HEAD" and not self.is_void:
            raise _unbound(operation, "the answer to HEAD has no body, so response= must be None")
        shape = _shape(operation, codec)
        self.write: Callable[[object], Wire] = shape.write
        self.read: Callable[[Sequence[str], str, bytes], object] = shape.read
        self.encode: Callable[[object], bytes] = codec.encoder(operation.response)
        self._decode = codec.decoder(operation.response)

    def answer(self, status: int, body: bytes) -> object:
        """The response in a successful answer.

        Raises `Remote` (502, `do_not_retry`) naming the field when the peer answered something
        else than the contract says: asking again does not change that.
        """
        if self.is_void:
            return None
        try:
            return self._decode(body or _EMPTY)
        except Undecodable as error:
            raise Remote(
                f"{self.operation.name} answered {status}, but not what the contract says:"
                f" {error.field}: {error}",
                status=502,
                title="Undecodable answer",
                data={"field": error.field, "status": status},
                do_not_retry=True,
            ) from error


def _shape(operation: Operation[Any, Any], codec: Codec) -> Shape:
    binding, form = operation.binding, operation.request
    codec.encoder(form)  # Misuse for a type that no shape can carry
    if is_nothing(form):
        if binding.params:
            raise _unbound(operation, f"request=None has nothing for {{{binding.params[0]}}}")
        return Nothing(operation)
    if not binding.params and binding.has_body:
        return Whole(operation, codec)
    if len(binding.params) == 1 and (scalar := scalar_of(form)) is not None:
        return Scalar(operation, scalar, codec)
    return Fields(operation, _bound_fields(operation), codec)


def _bound_fields(operation: Operation[Any, Any]) -> Mapping[str, Field]:
    binding, fields = operation.binding, fields_of(operation.request)
    if fields is None:
        raise _unbound(
            operation,
            "the request must be a type with fields, or a scalar for exactly one placeholder",
        )
    for param in binding.params:
        if not _is_scalar(fields.get(param)):
            raise _unbound(operation, f"the request has no scalar field {param!r}")
    for name, field in fields.items():
        if field.kinds is None and not binding.has_body:
            raise _unbound(
                operation,
                f"field {name!r} would go into the query, so it must be a scalar or a list of"
                " scalars",
            )
    return fields


class Nothing:
    """``request=None``."""

    def __init__(self, operation: Operation[Any, Any]) -> None:
        self._wire = Wire(path_of(operation.binding, ()), None)

    def write(self, value: object) -> Wire:
        """The path alone."""
        del value  # None
        return self._wire

    def read(self, params: Sequence[str], query: str, body: bytes) -> None:
        """None, whatever came."""


class Whole:
    """The value is the body."""

    def __init__(self, operation: Operation[Any, Any], codec: Codec) -> None:
        self._path = path_of(operation.binding, ())
        self._encode = codec.encoder(operation.request)
        self._decode = codec.decoder(operation.request)

    def write(self, value: object) -> Wire:
        """The value as the body."""
        return Wire(self._path, self._encode(value))

    def read(self, params: Sequence[str], query: str, body: bytes) -> object:
        """The value from the body; an empty body is null."""
        del params, query
        return self._decode(body or _EMPTY)


class Scalar:
    """The value is the one placeholder."""

    def __init__(self, operation: Operation[Any, Any], field: Field, codec: Codec) -> None:
        self._binding = operation.binding
        self._field = field
        self._plain = codec.plain
        self._convert = codec.converter(operation.request)

    def write(self, value: object) -> Wire:
        """The value in the path."""
        text = text_of(self._plain(value), self._binding.params[0])
        return Wire(path_of(self._binding, (text,)), None)

    def read(self, params: Sequence[str], query: str, body: bytes) -> object:
        """The value from the path."""
        del query, body
        try:
            return self._convert(self._field.plain(params[0]))
        except Undecodable as error:
            raise Undecodable(str(error), field=f"$.{self._binding.params[0]}") from error


class Fields:
    """Placeholders by name; the rest in the query or in the body."""

    def __init__(
        self, operation: Operation[Any, Any], fields: Mapping[str, Field], codec: Codec
    ) -> None:
        self._binding = operation.binding
        self._fields = fields
        self._lists = [  # an empty one leaves no trace in a query
            name for name, field in fields.items() if field.is_many and field.is_required
        ]
        self._plain = codec.plain
        self._encode = codec.encoder(dict[str, Any])
        self._decode = codec.decoder(dict[str, Any])
        self._convert = codec.converter(operation.request)

    def write(self, value: object) -> Wire:
        """The fields, each to its place."""
        plain = self._plain(value)
        if not isinstance(plain, dict):
            raise Misuse(
                f"{self._binding.template}: a request with fields is wanted, not {value!r}"
            )
        rest = cast("dict[str, object]", plain)
        path = path_of(
            self._binding, [text_of(rest.pop(name, None), name) for name in self._binding.params]
        )
        if self._binding.has_body:
            return Wire(path, self._encode(rest))
        query = query_of(rest)
        return Wire(f"{path}?{query}" if query else path, None)

    def read(self, params: Sequence[str], query: str, body: bytes) -> object:
        """The value from its places; a placeholder wins over a body member of its name."""
        found = self._members(body) if self._binding.has_body else self._queried(query)
        for name, text in zip(self._binding.params, params, strict=True):
            found[name] = self._fields[name].plain(text)
        return self._convert(found)

    def _members(self, body: bytes) -> dict[str, object]:
        return cast("dict[str, object]", self._decode(body)) if body else {}

    def _queried(self, query: str) -> dict[str, object]:
        found: dict[str, object] = {}
        lists: dict[str, list[object]] = {name: [] for name in self._lists}
        for name, text in _pairs(query):
            field = self._fields.get(name)
            if field is None:  # unknown fields are ignored, as everywhere
                continue
            if field.is_many:
                lists.setdefault(name, []).append(field.plain(text))
            elif name in found:
                raise Undecodable("given more than once", field=f"$.{name}")
            else:
                found[name] = field.plain(text)
        return found | lists


def path_of(binding: HttpBinding, params: Sequence[str]) -> str:
    """The path with its placeholders filled in, percent-encoded.

    Raises `Misuse` for an empty value, ``.`` and ``..``: they would name another resource.
    """
    pieces = [literal_of(binding.parts[0])]
    for name, param, literal in zip(binding.params, params, binding.parts[1:], strict=True):
        if param in {"", ".", ".."}:
            raise Misuse(f"{binding.template}: {name}={param!r} would name another resource")
        pieces.append(quote(param, safe=PATH_SAFE))
        pieces.append(literal_of(literal))
    return "".join(pieces)


def literal_of(literal: str) -> str:
    """A literal piece of a template, percent-encoded the same way on both sides."""
    return quote(literal, safe=PATH_SAFE + "/")


def query_of(fields: Mapping[str, object]) -> str:
    """Fields as a query: lists repeat, None is left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, (list, tuple, set, frozenset)):
            many = cast("Iterable[object]", value)
            pairs += [(name, text_of(one, name)) for one in many]
        elif value is not None:
            pairs.append((name, text_of(value, name)))
    return urlencode(pairs, quote_via=quote)


def text_of(value: object, name: str) -> str:
    """A scalar as text for path and query; raises `Misuse` for anything else, None included."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | float():
            return repr(value)
        case _:
            raise Misuse(
                f"{name} is {type(value).__name__}, no scalar, and cannot go into a path or query"
            )


def _is_scalar(field: Field | None) -> bool:
    return field is not None and field.kinds is not None and not field.is_many


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        raise Undecodable(f"more than {QUERY_FIELDS_MAX} query parameters") from error


def _unbound(operation: Operation[Any, Any], why: str) -> Misuse:
    return Misuse(
        f"operation {operation.name!r} cannot be bound to"
        f" {operation.binding.method} {operation.binding.template}: {why}"
    )
