"""Prints every public name with its signature: `scripts/public_interface.py > tests/shape/api.txt`.

Public is what the modules below list in `__all__`. A test compares the output with the file,
so that a change of the interface shows in review.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


PUBLIC = (
    "callcast",
    "callcast.brokers.memory",
    "callcast.brokers.sqlite",
    "callcast.codecs",
    "callcast.outbox",
    "callcast.testing",
    "callcast.testing.broker_suite",
)
"""The modules that programs and adapters import from."""


def public_names() -> Iterator[tuple[str, object]]:
    """Each public name with its object, by module and alphabet."""
    for module in map(importlib.import_module, PUBLIC):
        for name in sorted(module.__all__):
            yield f"{module.__name__}.{name}", getattr(module, name)


def lines() -> Iterator[str]:
    """The interface, one name or member a line."""
    for name, value in public_names():
        if inspect.isclass(value):
            yield from _class_lines(name, value)
        elif callable(value) and not isinstance(value, type):
            yield f"def {name}{_signature(value)}"
        else:
            yield f"{name}: {type(value).__name__}"


def _class_lines(name: str, value: type) -> Iterator[str]:
    if issubclass(value, enum.Enum):
        yield f"enum {name}: {', '.join(member.name for member in value)}"
        return
    yield f"class {name}{_signature(value)}"
    for member in sorted(vars(value)):
        if not member.startswith("_"):
            yield from _member_lines(f"    .{member}", vars(value)[member])


def _member_lines(name: str, member: object) -> Iterator[str]:
    if isinstance(member, property):
        yield f"{name} -> {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
    elif isinstance(member, (classmethod, staticmethod)):
        yield f"{name}{_signature(member.__func__)}"
    elif inspect.isfunction(member):
        mark = "async " if inspect.iscoroutinefunction(member) else ""
        yield f"    {mark}{name.strip()}{_signature(member)}"


def _signature(value: object) -> str:
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"  # a builtin that does not say
    parameters = [p.replace(annotation=_bare(p.annotation)) for p in signature.parameters.values()]
    returned = _bare(signature.return_annotation)
    shown = signature.replace(parameters=parameters, return_annotation=returned)
    return _ADDRESS.sub("", str(shown))


class _Bare(str):
    """An annotation that shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _bare(annotation: object) -> object:
    return _Bare(annotation) if isinstance(annotation, str) else annotation


if __name__ == "__main__":
    print("\n".join(lines()))
