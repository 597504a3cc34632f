"""Ids and dice from the operating system's own randomness."""

from __future__ import annotations

import os
import secrets
from weakref import WeakSet

_BYTES = 16
_BATCH = 256  # one system call for so many ids: a call each costs more than all else here


class Ids:
    """Makes globally unique ids: 128 random bits in hexadecimal. Safe after fork."""

    def __init__(self) -> None:
        self._ready: list[str] = []
        _makers.add(self)

    def __call__(self) -> str:
        """A new id."""
        try:
            return self._ready.pop()
        except IndexError:
            self._fill()
            return self._ready.pop()

    def forget(self) -> None:
        """Drop what is ready: in the child of a fork, which would make its parent's ids again."""
        self._ready = []

    def _fill(self) -> None:
        text = os.urandom(_BYTES * _BATCH).hex()
        size = 2 * _BYTES
        self._ready = [text[i : i + size] for i in range(0, len(text), size)]


_makers: WeakSet[Ids] = WeakSet()


def _forget_all() -> None:
    for maker in _makers:
        maker.forget()


os.register_at_fork(after_in_child=_forget_all)


def system_dice() -> float:
    """Uniform in [0, 1)."""
    return secrets.randbits(53) / (1 << 53)
