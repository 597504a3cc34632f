"""Named places where a test may let a process die, fail or pause."""

from __future__ import annotations

from typing import Protocol


class Failpoints(Protocol):
    """Called at each named place; does nothing unless a test armed that name."""

    def __call__(self, name: str, /) -> None:
        """Pass the place `name`: return, raise, pause (blocking) or kill the process."""
        ...


def nowhere(name: str, /) -> None:
    """Pass every place: the failpoints of a program that is not under test."""
