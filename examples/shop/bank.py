"""A pretend bank, somewhere else. The file ``bank.mood`` makes it ``slow`` or ``failing``."""

from __future__ import annotations

import asyncio
from pathlib import Path

LIMIT = 100_000  # cents
SLOW = 3.0  # seconds

MOOD = Path("bank.mood")


async def authorise(cents: int, *, key: str) -> bool:
    """Whether the card is good for it. A real bank remembers `key` and charges it once."""
    del key
    if mood() == "slow":
        await asyncio.sleep(SLOW)
    if mood() == "failing":
        raise ConnectionError("the bank has closed for today")
    return cents <= LIMIT


async def void(*, key: str) -> None:
    """Let go of the money, also of money that is asked for under this key later."""
    del key


def mood() -> str:
    return MOOD.read_text().strip() if MOOD.exists() else "fine"
