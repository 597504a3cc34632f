"""Verdicts that no layer gives: on poison, and on what escapes the chain of a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from callcast.core.outcome import Dead, Later, Outcome, Release
from callcast.policies.notes import summary
from callcast.ports.broker import Delivery

CRASHES_ALONE = 2
"""From so many crashes on a message runs alone, so that it takes no neighbour with it."""
CRASHES_MAX = 10
"""At so many crashes a message is dead."""
ESCAPES_MAX = 5
"""Rounds of a message whose handler ends with what is no `Exception`; as many as by default."""
ESCAPE_DELAY = 10.0
"""Seconds before the second such round; each further one waits four times as long."""


def is_suspect(delivery: Delivery) -> bool:
    """Whether it may be what killed its worker, so that it runs alone."""
    return CRASHES_ALONE <= delivery.crashes < CRASHES_MAX


def is_poison(delivery: Delivery) -> bool:
    """Whether it has ended so many workers that it does not run again."""
    return delivery.crashes >= CRASHES_MAX


def set_apart(
    batch: Sequence[Delivery], *, is_ordered: bool
) -> tuple[Delivery | None, Sequence[Delivery], Sequence[Delivery]]:
    """The first suspect of a batch, what is kept, and what goes back so that it can run alone.

    Without a suspect all are kept. With one, what is kept is the suspect, and of an ordered source
    what comes before it of its own key: it must not overtake that.
    """
    suspect = next((each for each in batch if each.crashes and is_suspect(each)), None)
    if suspect is None:
        return None, batch, ()
    key = suspect.message.key if is_ordered else None
    keep: list[Delivery] = []
    back: list[Delivery] = []
    is_before = True
    for delivery in batch:
        if delivery is suspect:
            keep.append(delivery)
            is_before = False
        elif is_before and key is not None and delivery.message.key == key:
            keep.append(delivery)
        else:
            back.append(delivery)
    return suspect, keep, back


def poison(delivery: Delivery, *, handler: str) -> Dead:
    """The verdict on poison."""
    notes = {
        "callcast-error-type": "poison",
        "callcast-error-message": (
            f"handed out {delivery.crashes} times to {handler} without a verdict: each time its"
            " process died, or its lease ran out"
        ),
        "callcast-attempts": str(delivery.crashes),
        "callcast-handler": handler,
    }
    return Dead("poison", notes)


def escaped(error: BaseException, round: int) -> Outcome:
    """The verdict on a message whose chain raised, which only a BaseException should do.

    | error                              | outcome                                              |
    |------------------------------------|------------------------------------------------------|
    | `KeyboardInterrupt`                | `Release`: the user's doing, not the message's       |
    | `SystemExit`, a cancellation that  | `Later`, ever more slowly, then `Dead`: uncounted it |
    | nobody here asked for, any other   | would come again for ever                            |
    """
    if isinstance(error, KeyboardInterrupt):
        return Release(reason="interrupted")
    reason = summary(error)
    if isinstance(error, asyncio.CancelledError):
        reason = "cancelled: the handler was cancelled, or awaited something that was"
    if round + 1 >= ESCAPES_MAX:
        # The cause is of the handler's making, also when it is none that an Exception could carry.
        cause = error if isinstance(error, Exception) else RuntimeError(reason)
        return Dead(reason, cause=cause, exhausted=True)
    return Later(ESCAPE_DELAY * 4.0**round, reason)
