"""Which types a contract may mention: checked when it is compiled, not at the first message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from callcast.codecs.foreign import is_model
from callcast.core.errors import Misuse


def checked_form(form: object) -> object:
    """Return the type when it can be written and read as JSON; else raise `Misuse`."""
    known: Any = form
    try:
        # The decoder knows rules that inspection does not: one struct to a union, and so on.
        msgspec.json.Decoder(known)
        top = inspect.type_info(known)
    except (TypeError, NameError, RuntimeError) as error:
        raise Misuse(f"{name_of(form)} cannot be written as JSON: {error}") from error
    for kind in _kinds(top):
        if isinstance(kind, inspect.CustomType) and not is_model(kind.cls):
            raise Misuse(
                f"{name_of(form)} cannot be written as JSON: {name_of(kind.cls)} is none of"
                " Struct, dataclass, TypedDict, attrs class, builtin, union or pydantic model"
            )
    return form


def name_of(form: object) -> str:
    """A type's name for a message."""
    return form.__qualname__ if isinstance(form, type) else str(form)


def _kinds(top: inspect.Type) -> Iterator[inspect.Type]:
    """This type and all types inside it, each once (types may contain themselves)."""
    seen: set[int] = set()
    waiting = [top]
    while waiting:
        kind = waiting.pop()
        if id(kind) not in seen:
            seen.add(id(kind))
            yield kind
            waiting.extend(_inside(kind))


def _inside(kind: inspect.Type) -> Iterator[inspect.Type]:
    match kind:
        case inspect.UnionType():
            yield from kind.types
        case inspect.DictType():
            yield kind.key_type
            yield kind.value_type
        case inspect.TupleType():
            yield from kind.item_types
        case inspect.Metadata():
            yield kind.type
        case (
            inspect.StructType()
            | inspect.DataclassType()
            | inspect.TypedDictType()
            | inspect.NamedTupleType()
        ):
            yield from (field.type for field in kind.fields)
        case inspect.CollectionType():
            yield kind.item_type
        case _:
            return
