"""What an interaction needs, declared on its contract; the adviser reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from callcast.core.errors import Misuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the two sides need of an interaction. None means "not said": the adviser then asks.

    Durations are seconds, rates are per second, `slo` is a percentage such as 99.9.
    """

    response: Literal["none", "ack", "value"] | None = None
    needed_within: float | None = None
    consistency: Literal["strong", "read_your_writes", "eventual"] | None = None
    on_failure: Literal["fail_caller", "degrade", "must_not_lose"] | None = None
    coupling: Literal["one_known", "many", "unknown"] | None = None
    ordering: Literal["none", "per_key", "total"] | None = None
    idempotent: bool | None = None
    peak_rate: float | None = None
    work: float | None = None
    slo: float | None = None

    def __post_init__(self) -> None:
        for name in ("needed_within", "peak_rate", "work"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise Misuse(f"Needs({name}={value!r}): must be above 0 (seconds, or per second)")
        if self.slo is not None and not 0 < self.slo < 100:
            raise Misuse(f"Needs(slo={self.slo!r}): a percentage between 0 and 100, such as 99.9")
