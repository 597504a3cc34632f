"""On which terms a callee is called, and the state that is kept about it in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

from callcast.core.errors import Misuse
from callcast.policies.breaker import Breaker
from callcast.policies.budget import Budget
from callcast.policies.bulkhead import Slots
from callcast.policies.options import Bulkhead, CircuitBreaker, Retry
from callcast.policies.retry import RetryOn

T = TypeVar("T")


class Kept(Generic[T]):
    """One thing for each key, made when it is first asked for, also by two threads at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._things: dict[str, T] = {}  # grows under the lock

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The thing of this key."""
        with self._lock:
            thing = self._things.get(key)
            if thing is None:
                thing = self._things[key] = make()
            return thing


class Guards:
    """Budget, circuits and slots of one callee; None where the policy has no such part.

    Operators reach in here: ``policy.guards("inventory").circuit().force_open()``. Thread-safe.
    """

    def __init__(
        self, retry: Retry | None, breaker: CircuitBreaker | None, bulkhead: Bulkhead | None
    ) -> None:
        self.budget: Budget | None = (
            None if retry is None else Budget(retry.budget, retry.budget_ratio, lock=Lock())
        )
        self.slots: Slots | None = None if bulkhead is None else Slots(bulkhead, lock=Lock())
        self._breaker = breaker
        self._circuits: Kept[Breaker] = Kept()

    def circuit(self, operation: str = "") -> Breaker | None:
        """The circuit; one for each operation where the policy says `per_operation`."""
        options = self._breaker
        if options is None:
            return None
        key = operation if options.per_operation else ""
        return self._circuits.get(key, lambda: Breaker(options, lock=Lock()))

    def resize(self, limit: int, queue: int = 0) -> None:
        """Set the bulkhead's limits while calls are under way; nothing without a bulkhead."""
        if self.slots is not None:
            for gate in self.slots.resize(limit, queue):
                gate.open()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The parts of a policy, and per key (a callee's service) the state behind them."""

    retry: Retry | None = field(default_factory=Retry)
    breaker: CircuitBreaker | None = field(default_factory=CircuitBreaker)
    bulkhead: Bulkhead | None = field(default_factory=Bulkhead)
    deadline: float | None = None
    attempt_timeout: float | None = None
    retry_on: RetryOn = None
    idempotent: bool = False
    _kept: Kept[Guards] = field(
        default_factory=Kept["Guards"], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("deadline", "attempt_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise Misuse(f"Policy({name}={value!r}): must be above 0 seconds")

    def guards(self, key: str = "") -> Guards:
        """The budget, circuits and slots of one callee; of a guarded function's under no key."""
        return self._kept.get(key, lambda: Guards(self.retry, self.breaker, self.bulkhead))
