"""What a worker is given: whom it works for, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from callcast.core.errors import Misuse
from callcast.core.outcome import Outcome
from callcast.core.work import Next
from callcast.ports.broker import Source


class Named(Protocol):
    """An `Operation`, an `Event`, or whatever else has a name on the wire."""

    @property
    def name(self) -> str:
        """The contract's name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One handler's share of a source.

    `run` is the compiled CONSUME chain: it answers with an outcome and raises nothing but a
    cancellation or another `BaseException`. `timeout` (seconds) bounds one delivery, immediate
    repeats included: the chain sees to that, the worker stops renewing the lease then. `park`
    makes every `Dead` hold its key. At most `slots` deliveries run at once; `lease` is seconds.
    """

    source: Source
    contract: Named
    service: str
    handler: str
    """``module.function (file:line)``, for messages."""
    run: Next[Outcome]
    timeout: float = 300.0
    park: bool = False
    slots: int = 64
    lease: float = 60.0

    def __post_init__(self) -> None:
        if self.slots < 1 or not self.lease > 0 or not self.timeout > 0:
            raise Misuse(
                f"{self.handler}: slots={self.slots!r} must be 1 or more, lease={self.lease!r} and"
                f" timeout={self.timeout!r} above 0 seconds"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker behaves. Durations are seconds."""

    kill_switch_rate: float = 0.5
    kill_switch_minimum: int = 20
    kill_switch_window: int = 60
    kill_switch_wait: float = 30.0
    watchdog: float = 30.0
    """Without progress for so long, while messages wait, the consumer is built anew."""
    lag_told: float = 15.0
    """Between two looks at how far the source is behind."""
    fetch_wait: float = 10.0
    """How long one fetch waits for a first message; an idle worker asks so often."""
    close_wait: float = 5.0
    """For a consumer to close, or a last batch to be settled, that may have become hopeless."""
