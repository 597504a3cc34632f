"""Pydantic models through msgspec's hooks, without importing pydantic.

A model class proves itself: whoever defined one has imported pydantic already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard, cast

import msgspec


class Model(Protocol):
    """What is used of a pydantic model."""

    model_fields: Mapping[str, Any]

    @classmethod
    def model_validate_json(cls, data: bytes) -> object:
        """A model from JSON text, by JSON's rules (a date is a string)."""
        ...

    def model_dump(self, *, mode: str, by_alias: bool) -> object:
        """Plain dicts, lists and scalars."""
        ...


class Invalid(Protocol):
    """What is used of pydantic's ValidationError."""

    def errors(self) -> Sequence[Mapping[str, Any]]:
        """What is wrong, each with ``loc`` and ``msg``; at least one."""
        ...


class Foreign(ValueError):
    """A model refused its input; msgspec puts its own path around it."""

    def __init__(self, detail: str, path: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.path = path
        """From the model downwards: ``.items[3].sku``."""


def is_model(kind: object) -> TypeGuard[type[Model]]:
    """Whether this is a pydantic model class."""
    return isinstance(kind, type) and any(
        base.__name__ == "BaseModel" and base.__module__ == "pydantic.main"
        for base in kind.__mro__[1:]
    )


def plain_foreign(value: object) -> object:
    """`enc_hook`: a model as plain values; TypeError for anything else."""
    if is_model(type(value)):
        return cast("Model", value).model_dump(mode="json", by_alias=True)
    raise TypeError(f"objects of type {type(value).__qualname__} have no JSON form")


def decoded_foreign(kind: type, value: object) -> object:
    """`dec_hook`: a model from plain values; raises `Foreign` with the model's own path."""
    if not is_model(kind):
        raise TypeError(f"type {kind.__qualname__} has no JSON form")
    body = msgspec.json.encode(value)
    try:
        return kind.model_validate_json(body)
    except ValueError as error:  # pydantic's ValidationError, the only one it raises
        raise _foreign(cast("Invalid", error)) from error


def _foreign(error: Invalid) -> Foreign:
    first = error.errors()[0]
    path = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
    return Foreign(str(first["msg"]), path)
