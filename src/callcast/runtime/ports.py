"""Time, chance, identity, observation and failpoints, in one record that is handed around."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from callcast.ports.clock import Clock
from callcast.ports.failpoints import Failpoints
from callcast.ports.observer import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the runtime would otherwise take from globals; tests hand in their own."""

    clock: Clock
    dice: Callable[[], float]
    """Uniform in [0, 1): for jitter only."""
    new_id: Callable[[], str]
    """A new globally unique id."""
    observer: Observer
    failpoints: Failpoints
