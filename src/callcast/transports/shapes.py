"""What a request type is made of, as far as path and query need to know."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, inspect

_LISTS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
)
_DIGITS_MAX = 40  # of an integer in a path or query


class Kinds(enum.Flag):
    """What a scalar may be once it is plain."""

    TEXT = enum.auto()
    INT = enum.auto()
    FLOAT = enum.auto()
    BOOL = enum.auto()


class Field(Struct, frozen=True):
    """One field of a request, as far as it can stand in a path or a query."""

    kinds: Kinds | None
    """None when it can stand in neither."""
    is_many: bool = False
    """A list of scalars: repeats in the query, stands in no path."""
    is_required: bool = True

    def plain(self, text: str) -> object:
        """What the text means; text that means nothing else stays, and validation names it."""
        kinds = self.kinds or Kinds.TEXT
        if Kinds.TEXT in kinds:
            return text
        if Kinds.INT in kinds and text.removeprefix("-").isdecimal() and len(text) <= _DIGITS_MAX:
            return int(text)
        if Kinds.FLOAT in kinds and (number := _float_of(text)) is not None:
            return number
        if Kinds.BOOL in kinds and text in _BOOLEANS:
            return _BOOLEANS[text]
        return text


def is_nothing(form: object) -> bool:
    """Whether the type is None."""
    return form is None or form is type(None)


def scalar_of(form: object) -> Field | None:
    """The type as a field of its own, when it is a scalar; else None."""
    kinds = _kinds_of(inspect.type_info(form))
    return None if kinds is None else Field(kinds)


def fields_of(form: object) -> Mapping[str, Field] | None:
    """The fields by their names on the wire; None for a type without fields."""
    models: Mapping[str, Any] | None = getattr(form, "model_fields", None)  # pydantic's
    if models is not None:
        return {
            model.alias or name: _field_of(
                inspect.type_info(model.annotation), is_required=model.is_required()
            )
            for name, model in models.items()
        }
    info = inspect.type_info(form)
    match info:
        case inspect.StructType() if info.array_like:
            return None
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            return {
                field.encode_name: _field_of(field.type, is_required=field.required)
                for field in info.fields
            }
        case _:
            return None


_PLAIN: Mapping[type[inspect.Type], Kinds] = {
    inspect.IntType: Kinds.INT,
    inspect.FloatType: Kinds.FLOAT,
    inspect.BoolType: Kinds.BOOL,
    inspect.StrType: Kinds.TEXT,
    inspect.DateTimeType: Kinds.TEXT,
    inspect.DateType: Kinds.TEXT,
    inspect.TimeType: Kinds.TEXT,
    inspect.TimeDeltaType: Kinds.TEXT,
    inspect.UUIDType: Kinds.TEXT,
    inspect.DecimalType: Kinds.TEXT,
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _field_of(info: inspect.Type, *, is_required: bool) -> Field:
    if isinstance(info, inspect.UnionType):  # a list or None is a list that may be left out
        lists = [kind for kind in info.types if isinstance(kind, _LISTS)]
        rest = [kind for kind in info.types if not isinstance(kind, (*_LISTS, inspect.NoneType))]
        if len(lists) == 1 and not rest:
            return _field_of(lists[0], is_required=False)
    if isinstance(info, _LISTS):
        return Field(_kinds_of(info.item_type), is_many=True, is_required=is_required)
    return Field(_kinds_of(info), is_required=is_required)


def _kinds_of(info: inspect.Type) -> Kinds | None:
    match info:
        case inspect.EnumType():
            return _kinds_of_values([member.value for member in info.cls])
        case inspect.LiteralType():
            return _kinds_of_values(info.values)
        case inspect.UnionType():
            return _kinds_of_union(info)
        case _:
            return _PLAIN.get(type(info))


def _kinds_of_union(info: inspect.UnionType) -> Kinds | None:
    together = Kinds(0)
    for kind in info.types:
        if not isinstance(kind, inspect.NoneType):
            kinds = _kinds_of(kind)
            if kinds is None:
                return None
            together |= kinds
    return together


def _kinds_of_values(values: Iterable[object]) -> Kinds:
    return Kinds.TEXT if all(isinstance(value, str) for value in values) else Kinds.INT


def _float_of(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    is_finite = number - number == 0  # JSON has no infinity and no NaN
    return number if is_finite else None
