"""Formulas of attempts, time, tails, queues and dead letters (F6 to F11).

Rates are a second, durations are seconds, shares are between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, inf, prod

from msgspec import Struct


def attempts_at_worst(attempts: Iterable[int]) -> int:
    """F6: retries at several layers multiply: three layers of four attempts are 64 at the bottom.

    Beyer et al.: Site Reliability Engineering, chapter Addressing Cascading Failures, 2016.
    """
    return prod(attempts)


def attempts_expected(failing: float, attempts: int) -> float:
    """F6: attempts of one layer when each fails with this chance: (1 - p^m) / (1 - p)."""
    if failing >= 1.0:
        return float(attempts)
    return float((1.0 - failing**attempts) / (1.0 - failing))


def attempts_with_budget(budget: float, depth: int) -> float:
    """F6: the most that reaches the bottom when each layer may add this share: (1 + b)^d.

    As Finagle's RetryBudget: 20 % of the requests, over ten seconds, and 10 a second beside.
    """
    return float((1.0 + budget) ** depth)


class Wait(Struct, frozen=True):
    """One call on a path: how long an attempt may take, how many there are, waits between them."""

    attempt: float
    attempts: int = 1
    backoff: float = 0.0

    @property
    def worst(self) -> float:
        """All attempts at their limit, and the longest waits between them."""
        return self.attempts * self.attempt + self.backoff


def worst_case(own: float, groups: Iterable[Sequence[Wait]]) -> float:
    """F7: W = own + sum of (m t + back-off) of what is in sequence, the longest of what is not.

    Each group is side by side with itself; the groups are one after the other. A caller whose
    attempt ends before this leaves work behind that nobody waits for: gRPC, Deadlines guide.
    """
    return own + sum(max((each.worst for each in group), default=0.0) for group in groups)


def slow_share(one: float, count: int) -> float:
    """F8: a request that needs `count` answers is slow when one of them is: 1 - (1 - p)^n.

    Dean, Barroso: The Tail at Scale, CACM 56(2), 2013.
    """
    return float(1.0 - (1.0 - one) ** count)


def quantile_of_each(whole: float, count: int) -> float:
    """F8: the quantile that each of `count` hops must keep for the chain to keep `whole`."""
    return float(whole ** (1.0 / count))


def in_flight(rate: float, seconds: float) -> float:
    """F9: L = lambda W. Little: A Proof for the Queuing Formula L = lambda W, 1961."""
    return rate * seconds


def bulkhead_for(flying: float, used: float = 0.7) -> int:
    """F9: a limit of which `flying` calls use this share, rounded up."""
    return -int(-flying // used)


def backlog_after(rate: float, outage: float) -> float:
    """F9: messages that wait when their consumer comes back."""
    return rate * outage


def drain(rate: float, outage: float, capacity: float) -> float:
    """F9: seconds until they are gone, lambda T / (c mu - lambda); `inf` without spare capacity."""
    spare = capacity - rate
    return rate * outage / spare if spare > 0 else inf


def capacity_to_drain(rate: float, outage: float, within: float) -> float:
    """F9: messages a second that are needed to be through in time: lambda (1 + T / D)."""
    return rate * (1.0 + outage / within)


def storage(rate: float, outage: float, size_bytes: float) -> float:
    """F9: bytes that the broker keeps meanwhile."""
    return rate * outage * size_bytes


def utilisation(rate: float, work: float, workers: int) -> float:
    """F10: rho = lambda S / c; at 1 and above the queue grows for ever."""
    return rate * work / workers


def erlang_c(rate: float, work: float, workers: int) -> float:
    """F10: the chance that a message has to wait, in an M/M/c queue; 1 when it is overloaded.

    Erlang 1917, by the recursion of his B formula: C = B / (1 - rho (1 - B)).
    """
    rho = utilisation(rate, work, workers)
    if rho >= 1.0:
        return 1.0
    blocked = 1.0
    for servers in range(1, workers + 1):
        load = rate * work * blocked
        blocked = load / (servers + load)
    return blocked / (1.0 - rho * (1.0 - blocked))


def waits_longer(rate: float, work: float, workers: int, *, than: float) -> float:
    """F10: P(W > t) = C e^-(c mu - lambda) t; 1 when it is overloaded."""
    if utilisation(rate, work, workers) >= 1.0:
        return 1.0
    return erlang_c(rate, work, workers) * exp(-(workers / work - rate) * than)


def dead_rate(rate: float, *, poison: float, failing: float, attempts: int) -> float:
    """F11: dead letters a second: lambda (p_poison + p^m). Derived."""
    return float(rate * (poison + failing**attempts))


def dead_in_outage(rate: float, outage: float, horizon: float) -> float:
    """F11: messages that die in an outage which outlasts the retries: lambda max(0, T - H)."""
    return rate * max(0.0, outage - horizon)
