"""The ladder of delays: a message steps from one queue to the next until it is due.

Each step is a queue whose messages all wait equally long, because RabbitMQ looks at the head of a
queue alone: a short wait behind a long one would be a long one.
"""

from __future__ import annotations

STEPS = (1, 2, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 14_400, 86_400)
"""Seconds of each step."""
SLACK = 0.001
"""Seconds by which a broker's timer may be early: TTLs are whole milliseconds."""


def step(left: float) -> int:
    """The step for a message that is due in so many seconds: the largest one not above it.

    Below the first step it is that one, if it must be one: never early, late by less than a second.
    """
    fitting = [each for each in STEPS if each <= left + SLACK]
    return fitting[-1] if fitting else STEPS[0]


def hops(delay: float) -> list[int]:
    """The steps that a delay takes, for people and tests."""
    taken: list[int] = []
    left = delay
    while left > 0:
        taken.append(step(left))
        left -= taken[-1]
    return taken
