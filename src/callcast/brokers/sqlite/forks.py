"""Forking: a child must start without what SQLite remembers of its parent's connections.

SQLite keeps per process which locks its connections hold, and a child inherits that memory but
not the locks: a connection opened beside inherited ones would believe in locks that nobody holds.
So no fork happens while one of our threads is inside SQLite, and the child closes the inherited
connections at once. That writes nothing: the parent's own locks keep the child from it.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet

HOLD = 5.0
"""Seconds that a fork waits for a thread to come out of SQLite."""


class Forked(Protocol):
    """Something that has threads inside SQLite now and then."""

    @property
    def calm(self) -> tuple[threading.Lock, ...]:
        """Each is held while a thread is inside SQLite."""
        ...

    def drop(self, *, is_calm: bool) -> None:
        """Called in the child: close what was inherited; connections only if all was calm."""
        ...


class _Hooks:
    """What `os.register_at_fork` calls, for all engines of the process."""

    def __init__(self) -> None:
        self._known: WeakSet[Forked] = WeakSet()
        self._is_armed = False
        self._held: list[tuple[Forked, list[threading.Lock]]] = []

    def add(self, one: Forked) -> None:
        """Look after this one from now on."""
        self._known.add(one)
        if not self._is_armed:
            self._is_armed = True
            os.register_at_fork(
                before=self._hold, after_in_parent=self._go, after_in_child=self._drop
            )

    def discard(self, one: Forked) -> None:
        """Forget it: it is closed."""
        self._known.discard(one)

    def _hold(self) -> None:
        for one in list(self._known):
            self._held.append((one, [lock for lock in one.calm if lock.acquire(timeout=HOLD)]))

    def _go(self) -> None:
        for _, locks in self._held:
            for lock in locks:
                lock.release()
        self._held.clear()

    def _drop(self) -> None:
        for one, locks in self._held:
            one.drop(is_calm=len(locks) == len(one.calm))
            self._known.discard(one)
        self._go()


HOOKS = _Hooks()
"""One per process, as the hooks of a fork are; empty until a file is opened."""
