"""A caller that hangs up ends what is done for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callcast.transports.hang_up import HangUp


class Line:
    """A receive channel that can be hung up."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        return await self.messages.get()


async def served(line: Line, started: asyncio.Event, after: float = 0.0) -> str:
    hang_up = HangUp(line.receive, after)
    try:
        started.set()
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if hang_up.is_seen:
            return "hung up"
        raise
    finally:
        await hang_up.close()
    return "done"


async def test_a_hang_up_cancels_the_task_and_is_told_from_other_cancellations() -> None:
    line, started = Line(), asyncio.Event()
    task = asyncio.create_task(served(line, started))
    await started.wait()
    line.messages.put_nowait({"type": "http.request"})
    line.messages.put_nowait({"type": "http.disconnect"})
    assert await task == "hung up"
    assert task.cancelling() == 0


async def test_another_cancellation_passes_and_the_watch_ends() -> None:
    line, started = Line(), asyncio.Event()
    task = asyncio.create_task(served(line, started))
    await started.wait()
    while not line.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


async def test_a_quick_request_is_never_watched() -> None:
    line = Line()
    hang_up = HangUp(line.receive, 60.0)
    await hang_up.close()
    assert line.asked == 0


async def test_a_hang_up_after_the_end_cancels_nothing() -> None:
    line = Line()
    hang_up = HangUp(line.receive, 0.0)
    while not line.asked:
        await asyncio.sleep(0)
    line.messages.put_nowait({"type": "http.disconnect"})
    await hang_up.close()  # closes in the very turn in which the watch would wake
    assert not hang_up.is_seen
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
