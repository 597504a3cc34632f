"""Parts for tests of the inbox: the layer of one consumer, and handlers beneath it."""

from __future__ import annotations

from transaction_parts import (
    PACKED,
    PLACED,
    Bench,
    transaction_of,
)

from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Work
from callcast.runtime.inbox import Inbox


async def pack(work: Work) -> Outcome:
    """The usual handler: a business row and a message."""
    tx = transaction_of(work)
    await tx.execute("insert into ledger values (?)", work.id)
    await tx.publish(PACKED, work.id)
    return DONE


def inbox(b: Bench) -> Inbox:
    return Inbox(b.units, "warehouse", PLACED)


async def never(_work: Work) -> object:
    raise AssertionError("it ran again")
