"""Children, gates and races: the three ways of doing several things at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Protocol, TypeVar

R = TypeVar("R")


class Child(Protocol):
    """A started child."""

    def cancel(self) -> None:
        """Ask it to end."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...

    async def wait(self) -> None:
        """Return when it has ended, whatever it ended with."""
        ...


class Tasks(Protocol):
    """Starts children that cannot be lost: held until they end, their errors reported."""

    def start(self, work: Coroutine[object, object, object], *, name: str) -> Child:
        """Start a child. An error it ends with goes to the owner's `failed` callback."""
        ...

    async def close(self) -> None:
        """Cancel all children and wait for them."""
        ...


class Gate(Protocol):
    """Closed at first; whoever waits goes through once it is opened."""

    async def wait(self) -> None:
        """Return once open."""
        ...

    def open(self) -> None:
        """Let all through."""
        ...

    def shut(self) -> None:
        """Make the next ones wait."""
        ...


class Race(Protocol):
    """The first of several; the rest are cancelled and awaited."""

    async def first(self, runners: Sequence[Callable[[], Awaitable[R]]]) -> R:
        """The result (or error) of the first that ends."""
        ...
