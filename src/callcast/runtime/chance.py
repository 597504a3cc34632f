"""Ids and dice from the operating system's own randomness."""

from __future__ import annotations

import os
import secrets

_BYTES = 16
_BATCH = 256  # one system call for so many ids: a call each costs more than all else here


class Ids:
    """Makes globally unique ids: 128 random bits in hexadecimal. Safe after fork."""

    def __init__(self) -> None:
        self._pid = 0
        self._ready: list[str] = []  # taken by __call__; dropped in a child, which would repeat it

    def __call__(self) -> str:
        """A new id."""
        if not self._ready or self._pid != os.getpid():
            self._fill()
        return self._ready.pop()

    def _fill(self) -> None:
        text = os.urandom(_BYTES * _BATCH).hex()
        size = 2 * _BYTES
        self._ready = [text[i : i + size] for i in range(0, len(text), size)]
        self._pid = os.getpid()


def system_dice() -> float:
    """Uniform in [0, 1)."""
    return secrets.randbits(53) / (1 << 53)
