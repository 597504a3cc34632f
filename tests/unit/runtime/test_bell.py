"""The bell, and the turn of the loop in which its waiter is cancelled."""

from __future__ import annotations

import asyncio

from callcast.runtime.bell import Bell


async def test_a_ring_wakes_the_one_who_waits_and_is_forgotten_otherwise() -> None:
    bell = Bell()
    bell.ring()
    waiting = asyncio.ensure_future(bell.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    bell.ring()
    await waiting
    assert bell.waiting is None


async def test_a_ring_in_the_turn_in_which_the_waiter_is_cancelled_harms_nobody() -> None:
    bell = Bell()
    waiting = asyncio.ensure_future(bell.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    bell.ring()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_the_end_of_a_cancelled_waiter_does_not_forget_the_next_one() -> None:
    bell = Bell()
    first = asyncio.ensure_future(bell.wait())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(bell.wait())
    first.cancel()
    await asyncio.wait([first])
    await asyncio.sleep(0)
    bell.ring()
    await asyncio.wait_for(second, 5)
