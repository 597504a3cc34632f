"""The retry budget of one callee: a token bucket, told of successes and failures."""

from __future__ import annotations

from contextlib import AbstractContextManager


class Budget:
    """Lets single failures be retried and damps a storm to a share of the successes.

    | event           | tokens                                       |
    |-----------------|----------------------------------------------|
    | start           | `tokens_max`                                 |
    | failure         | - 1, never below 0; *before* the question    |
    | success         | + `ratio`, never above `tokens_max`          |
    | may I retry?    | unchanged; yes while above `tokens_max` / 2  |

    Thread-safe with a `lock` that is.
    """

    def __init__(
        self, tokens_max: float, ratio: float, *, lock: AbstractContextManager[object]
    ) -> None:
        self._max = tokens_max
        self._ratio = ratio
        self._lock = lock
        self._tokens = tokens_max  # changed under the lock

    @property
    def tokens(self) -> float:
        """What is left."""
        return self._tokens

    @property
    def allows(self) -> bool:
        """Whether a retry may start."""
        return self._tokens > self._max / 2

    def succeed(self) -> None:
        """Take note of a success."""
        if self._tokens >= self._max:  # nearly always: nothing to give, so no lock
            return
        with self._lock:
            self._tokens = min(self._max, self._tokens + self._ratio)

    def fail(self) -> None:
        """Take note of a failure of the callee, or of one that a retry may follow."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1.0)
