"""The parts of a `Policy`: frozen descriptions that their `repr` explains. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass

from callcast.core.errors import Misuse


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after a failure that may pass, with full jitter and a budget per callee.

    `attempts` counts the first one. The delay before attempt n + 1 is a random share of
    ``min(cap, base * 2 ** (n - 1))``. Each failure of the callee takes a token of
    `budget`, each success gives `budget_ratio` of one; while half of the tokens or more are gone
    nothing is retried, so that a storm of failures is not multiplied. Raises `Misuse` for numbers
    out of range.
    """

    attempts: int = 3
    base: float = 0.05
    cap: float = 5.0
    budget: float = 100.0
    budget_ratio: float = 0.1

    def __post_init__(self) -> None:
        _need(self.attempts >= 1, f"Retry(attempts={self.attempts!r}): 1 or more")
        _need(
            0 <= self.base <= self.cap <= 86_400,
            f"Retry(base={self.base!r}, cap={self.cap!r}): 0 <= base <= cap <= 86400 seconds",
        )
        _need(self.budget > 0, f"Retry(budget={self.budget!r}): above 0 tokens")
        _need(
            0 <= self.budget_ratio <= 1,
            f"Retry(budget_ratio={self.budget_ratio!r}): tokens for a success, 0 to 1",
        )


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Stop asking a callee that fails, and try it again carefully.

    The window holds the last `window` calls, or those of the last `window_time` seconds. From
    `minimum` calls on the circuit opens when `rate` of them failed or `slow_rate` of them took
    longer than `slow_call` (None: half of the call's deadline); below it, on `consecutive`
    failures in a row (None is 5; a number given here holds above the minimum as well). After
    `wait` seconds `permitted` calls are the trial; each failed trial doubles the wait, up to
    `wait_max`. A trial phase lasts at most `half_open_max` (None: as long as the wait).
    `per_operation` keeps a breaker for each operation instead of one for the callee. Raises
    `Misuse` for numbers out of range.
    """

    window: int = 100
    minimum: int = 20
    rate: float = 0.5
    wait: float = 30.0
    wait_max: float = 300.0
    consecutive: int | None = None
    slow_call: float | None = None
    slow_rate: float = 1.0
    window_time: int | None = None
    permitted: int = 3
    half_open_max: float | None = None
    per_operation: bool = False

    def __post_init__(self) -> None:
        for name in ("window", "minimum", "permitted", "consecutive", "window_time"):
            value = getattr(self, name)
            _need(value is None or value >= 1, f"CircuitBreaker({name}={value!r}): 1 or more")
        for name in ("rate", "slow_rate"):
            value = getattr(self, name)
            _need(0 < value <= 1, f"CircuitBreaker({name}={value!r}): a share above 0, at most 1")
        for name in ("wait", "slow_call", "half_open_max"):
            value = getattr(self, name)
            _need(value is None or value > 0, f"CircuitBreaker({name}={value!r}): above 0 seconds")
        _need(
            self.wait <= self.wait_max,
            f"CircuitBreaker(wait={self.wait!r}, wait_max={self.wait_max!r}): wait_max is less",
        )
        _need(
            self.window_time is not None or self.minimum <= self.window,
            f"CircuitBreaker(minimum={self.minimum!r}, window={self.window!r}): a window of"
            f" {self.window} calls never holds {self.minimum}; raise window or lower minimum",
        )


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """At most `limit` calls to one callee at a time, and at most `queue` more that wait, in order.

    Raises `Misuse` for numbers out of range.
    """

    limit: int = 64
    queue: int = 0

    def __post_init__(self) -> None:
        _need(self.limit >= 1, f"Bulkhead(limit={self.limit!r}): 1 or more")
        _need(self.queue >= 0, f"Bulkhead(queue={self.queue!r}): 0 or more")


def _need(is_so: bool, text: str) -> None:  # noqa: FBT001 - the condition is the subject
    if not is_so:
        raise Misuse(text)
