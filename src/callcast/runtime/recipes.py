"""The four recipes: which layers stand around a piece of work, outermost first.

A recipe is a list that can be read, printed (`names`, `callcast explain`) and changed; `checked`
refuses an order that is known to be wrong. What is not configured is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from callcast.core.errors import Misuse
from callcast.core.outcome import Outcome
from callcast.core.work import Layer
from callcast.policies.deadline import ServedDeadline
from callcast.policies.expire import Expire
from callcast.policies.notes import Origin
from callcast.policies.observing import Measure, Trace
from callcast.policies.recover import Recover
from callcast.policies.recovery import Recovery
from callcast.policies.repeat import Repeat
from callcast.policies.timeout import Timeout
from callcast.policies.validate import Validate, ValidateRequest
from callcast.runtime.ports import Ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Consuming:
    """What the CONSUME recipe is made of."""

    recovery: Recovery
    origin: Origin
    decode: Callable[[bytes], object]
    timeout: float = 300.0
    """Seconds for one delivery, immediate repeats included."""
    inbox: Layer[Outcome] | None = None


def consume(parts: Consuming, ports: Ports) -> list[Layer[Outcome]]:
    """Around a handler that answers `Done`; the outcome of every message comes out of it."""
    clock, recovery = ports.clock, parts.recovery
    layers: list[Layer[Outcome] | None] = [
        Trace(ports.observer),
        Measure(ports.observer, clock),
        Recover(recovery, parts.origin, clock=clock, dice=ports.dice),
        Expire(clock),
        Validate(parts.decode),
        Repeat(recovery, clock=clock, timeout=parts.timeout) if recovery.immediate else None,
        parts.inbox,
        Timeout(parts.timeout, clock=clock),
    ]
    return checked(layers)


def serve(ports: Ports, inbox: Layer[object] | None = None) -> list[Layer[object]]:
    """Around a handler that is called; `inbox` keeps the answers of ``once=True`` operations."""
    layers: list[Layer[object] | None] = [
        Trace(ports.observer),
        Measure(ports.observer, ports.clock),
        ServedDeadline(ports.clock),
        inbox,
        ValidateRequest(),
    ]
    return checked(layers)
