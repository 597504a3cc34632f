"""From a list of layers to one function, once, at start."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from callcast.core.work import Layer, Next, Work

R = TypeVar("R")


def chain(layers: Sequence[Layer[R]], last: Next[R]) -> Next[R]:
    """Put the layers around `last`, the first outermost; each `__call__` is looked up only here.

    An error may come from the call itself or from awaiting what it returned: ``await run(work)``
    meets both.
    """
    step = last
    for layer in reversed(layers):
        step = _around(layer, step)
    return step


def _around(layer: Layer[R], proceed: Next[R]) -> Next[R]:
    call = layer.__call__

    def step(work: Work) -> Awaitable[R]:
        return call(work, proceed)

    return step
