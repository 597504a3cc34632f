"""What becomes of a message whose handler failed: one pure function, testable without a broker.

| error                                       | outcome                                         |
|---------------------------------------------|-------------------------------------------------|
| `Refused`, `Undecodable`, `Misuse`, permanent | `Dead` at once: no repeat would mend it       |
| `Busy`                                      | `Release`, shortly: a lock conflict, uncounted  |
| `Unavailable`                               | `Release`: a database is away, uncounted        |
| any other, rounds left                      | `Later` after the round's delay plus jitter     |
| any other, no round left                    | `Dead`                                          |

Each round is one run and `immediate` repeats of it. The most specific class of the error decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from callcast.core.errors import Busy, Misuse, Refused, Unavailable, Undecodable
from callcast.core.outcome import Dead, Later, Outcome, Release
from callcast.policies.notes import summary

DELAY_MAX = 86_400.0
IMMEDIATE_MAX = 100
BUSY_WAIT = (0.1, 1.0)
"""Seconds, least and most: long enough for a lock holder to commit, short beside a delay."""
UNAVAILABLE_WAIT = (1.0, 5.0)
"""Seconds, least and most: the kill switch is what waits for a database to come back."""
BUSY = "busy: "
AWAY = "unavailable: "
"""How the reason of such a `Release` begins; the second opens the kill switch."""
PERMANENT: tuple[type[Exception], ...] = (Refused, Undecodable, Misuse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How often and when a failed message is tried again; by default 20 times, then it is dead.

    `immediate` repeats follow at once, inside the same delivery; `delays` are seconds between
    rounds, each lengthened by up to `jitter` (0.2 is 20 %), never shortened. The message waits at
    the broker, holds no slot meanwhile, and survives a crash. `permanent` errors are dead at once,
    subclasses included; `rules` give single classes a recovery of their own, and the most specific
    class wins. Raises `Misuse` for a delay above 24 hours or a number out of range.
    """

    immediate: int = 3
    delays: tuple[float, ...] = (10.0, 30.0, 120.0, 600.0)
    jitter: float = 0.2
    permanent: tuple[type[Exception], ...] = ()
    rules: Mapping[type[Exception], Recovery] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )

    def __post_init__(self) -> None:
        if not 0 <= self.immediate <= IMMEDIATE_MAX:
            raise Misuse(f"Recovery(immediate={self.immediate!r}): 0 to {IMMEDIATE_MAX} repeats")
        for delay in self.delays:
            if not 0 < delay <= DELAY_MAX:
                raise Misuse(
                    f"Recovery(delays={self.delays!r}): each is above 0 and at most"
                    f" {DELAY_MAX:.0f} seconds (24 hours)"
                )
        if not 0 <= self.jitter <= 1:
            raise Misuse(f"Recovery(jitter={self.jitter!r}): a share between 0 and 1")

    @property
    def rounds_max(self) -> int:
        """Deliveries of one message, the first included."""
        return len(self.delays) + 1

    @property
    def attempts_max(self) -> int:
        """Runs of the handler for one message, in all."""
        return self.rounds_max * (self.immediate + 1)

    @property
    def longest(self) -> float:
        """Seconds for which a message may wait between its runs in all, by any of the rules."""
        own = sum(self.delays) * (1.0 + self.jitter)
        return max([own, *(rule.longest for rule in self.rules.values())])

    def rule(self, error: Exception) -> Recovery:
        """The recovery that holds for this error: a rule's, else this one."""
        found = self._found(error)
        return found if isinstance(found, Recovery) else self

    def is_repeatable(self, error: Exception) -> bool:
        """Whether an immediate repeat could help: not for what is permanent, busy or away."""
        return isinstance(self._found(error), Recovery)

    def outcome(self, error: Exception, round: int, dice: Callable[[], float]) -> Outcome:
        """The verdict on a message whose handler failed in this round (0 is the first)."""
        found = self._found(error)
        if isinstance(found, Recovery):
            return found.later(error, round, dice)
        if found is Busy:
            return Release(between(BUSY_WAIT, dice), BUSY + summary(error))
        if found is Unavailable:
            return Release(between(UNAVAILABLE_WAIT, dice), AWAY + summary(error))
        return Dead(summary(error), cause=error)

    def later(self, error: Exception, round: int, dice: Callable[[], float]) -> Later | Dead:
        """The same for an error that may pass: `Later`, or `Dead` when no round is left."""
        if round >= len(self.delays):
            return Dead(summary(error), cause=error, exhausted=True)
        return Later(self.delays[round] * (1.0 + self.jitter * dice()), summary(error))

    def preview(self) -> str:
        """All attempts as a table, with their earliest and latest times and the total."""
        lines = ["attempt  round  starts at the earliest  and at the latest"]
        least = most = 0.0
        number = 0
        for place in range(self.rounds_max):
            if place:
                least += self.delays[place - 1]
                most += self.delays[place - 1] * (1.0 + self.jitter)
            for _ in range(self.immediate + 1):
                number += 1
                lines.append(f"{number:7}  {place + 1:5}  {spoken(least):>22}  {spoken(most):>17}")
        lines.append(
            f"{number} attempts over {spoken(least)} to {spoken(most)} and the time of the runs"
            " themselves; then the dead letters"
        )
        permanent = ", ".join(each.__name__ for each in (*PERMANENT, *self.permanent))
        lines.append(f"dead at once: {permanent}")
        lines.extend(
            f"{kind.__name__}: {rule.attempts_max} attempts, delays {rule.delays}"
            for kind, rule in self.rules.items()
        )
        return "\n".join(lines)

    def _found(self, error: Exception) -> Recovery | type[Exception]:
        """A recovery, or the class that rules one out; the most specific class decides."""
        for kind in type(error).__mro__:
            if kind in self.rules:
                return self.rules[kind]
            if kind in self.permanent or kind in PERMANENT:
                return Refused
            if kind is Busy or kind is Unavailable:
                return kind
        return self


def single(error: Exception) -> Exception:
    """The only error of a group that holds just one: rules are written for what was raised."""
    members = _members(error)
    return single(members[0]) if len(members) == 1 else error


def _members(error: Exception) -> Sequence[Exception]:
    if isinstance(error, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", error).exceptions
    return ()


def between(limits: tuple[float, float], dice: Callable[[], float]) -> float:
    """A number from the least to the most."""
    least, most = limits
    return least + (most - least) * dice()


def spoken(seconds: float) -> str:
    """Seconds as a person says them: ``2 min 40 s``."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)
