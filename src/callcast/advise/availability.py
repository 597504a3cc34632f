"""Formulas of availability: chains, soft edges, replicas, retries, messages (F1 to F5).

All availabilities are shares between 0 and 1, and failures are taken to be independent. That is
optimistic: what fails together (a zone, a release, an expired certificate) fails more often than
the product says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

SECONDS_OF_30_DAYS = 30 * 86_400.0


def chain(hard: Iterable[float]) -> float:
    """F1: a request is answered when every hard dependency is up; each is given once.

    Treynor, Dahlin, Rau, Beyer: The Calculus of Service Availability, ACM Queue 15(2), 2017.
    """
    return prod(hard)


def chain_of(dependencies: Mapping[str, float]) -> float:
    """F1 by name: what several ways lead to counts once, since it is down for all of them at once.

    Source as `chain`.
    """
    return prod(dependencies.values())


def down_seconds(availability: float, over: float = SECONDS_OF_30_DAYS) -> float:
    """How long that is down in so many seconds, 30 days by default."""
    return (1.0 - availability) * over


def soft(availability: float, used: float) -> float:
    """F2: seen by all requests, a dependency that only a share `used` of them needs.

    By probability: a' = 1 - q (1 - a).
    """
    return 1.0 - used * (1.0 - availability)


def with_fallback(availability: float, fallback: float) -> float:
    """F2: a failure is made good by a fallback that works in this share of the cases.

    By probability: a' = a + (1 - a) f.
    """
    return availability + (1.0 - availability) * fallback


def replicas(availability: float, count: int) -> float:
    """F2: at least one of `count` independent replicas is up: 1 - (1 - a)^n."""
    return float(1.0 - (1.0 - availability) ** count)


def with_retries(hard: float, transient: float, attempts: int) -> float:
    """F3: retries mend what is transient and nothing else: a' = h (1 - t^m).

    `hard` is the share of time in which it is up at all, `transient` the chance that one attempt
    fails while it is, `attempts` all attempts together. Derived; it keeps retries from promising
    nines that an outage takes away.
    """
    return float(hard * (1.0 - transient**attempts))


def split(availability: float, transient: float) -> float:
    """F3 backwards: the hard part h of a measured a = h (1 - t); at most 1."""
    return 1.0 if transient >= 1.0 else min(1.0, availability / (1.0 - transient))


def of_message(broker: float, *, has_outbox: bool) -> float:
    """F4: what is left of a dependency when it is told by a message: the broker.

    With an outbox in the caller's own database it is nothing, since that database is in the
    product already. Derived.
    """
    return 1.0 if has_outbox else broker


def needed_of_each(target: float, count: int) -> float:
    """F5: what each of `count` equal dependencies must have for the whole to reach `target`.

    a >= 1 - (1 - T) / n, the first order of F1, and with it the rule of the extra nine. Source as
    `chain`.
    """
    return 1.0 - (1.0 - target) / count
