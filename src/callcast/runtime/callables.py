"""What calling a function gives: known before it is called where that can be seen.

| the function, or what it wraps in the end    | calling it gives       | `nature`  |
|----------------------------------------------|------------------------|-----------|
| `async def`                                  | something to await     | `ASYNC`   |
| a generator or an `async def` with `yield`   | a stream, not yet run  | `STREAM`  |
| any other                                    | nobody knows           | `PLAIN`   |

The outermost that is one of the first two decides. A lambda, or a decorator that does not say what
it wraps (`functools.wraps`), may return something to await: only its result shows it.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import cast

_STREAMS = (GeneratorType, AsyncGeneratorType)


class Nature(enum.Enum):
    """What calling a function gives."""

    ASYNC = "async"
    STREAM = "stream"
    PLAIN = "plain"


def nature(function: object) -> Nature:
    """What calling it gives, as far as it can be seen; see the table of this module."""
    for step in _steps(function):
        if inspect.iscoroutinefunction(step):
            return Nature.ASYNC
        if inspect.isgeneratorfunction(step) or inspect.isasyncgenfunction(step):
            return Nature.STREAM
    return Nature.PLAIN


def inmost(function: object) -> object:
    """What a partial, a wrapper or a callable object calls in the end: what was written."""
    last = function
    for step in _steps(function):
        last = step
    return last


def is_unfinished(result: object) -> bool:
    """Whether it is something to await or to iterate over: what it stands for has not run."""
    kind = type(result)
    return hasattr(kind, "__await__") or kind in _STREAMS


def discard(result: object) -> None:
    """Close what nobody will run, so that Python does not complain about it as well."""
    if isinstance(result, CoroutineType | GeneratorType):
        cast("GeneratorType[object, object, object]", result).close()


def where(function: Callable[..., object]) -> str:
    """Name a function with its file and line, for messages: the one that was written."""
    written = inmost(function)
    code = getattr(written, "__code__", None)
    name = getattr(written, "__qualname__", None) or type(written).__qualname__
    module = getattr(written, "__module__", None) or type(written).__module__
    name = f"{module}.{name}"
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _steps(function: object) -> Iterator[object]:
    """The function, then what it wraps, and so on to the function that was written."""
    yield function
    if isinstance(function, functools.partial):
        yield from _steps(cast("functools.partial[object]", function).func)
        return
    wrapped: object = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield from _steps(wrapped)
    elif not (inspect.isroutine(function) or isinstance(function, type)):
        method: object = getattr(type(function), "__call__", None)  # noqa: B004 - looked at, not asked for
        yield from _steps(method)
