"""``callcast queues`` asks about several groups at the same time, and about no more than some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from callcast.brokers.memory import MemoryBroker
from callcast.cli.inboxes import Inboxes
from callcast.cli.queues import AT_ONCE, lags
from callcast.ports.broker import Lag, Source
from callcast.runtime.system import system_ports

SOURCES = [Source(f"t{number:02}", "mail") for number in range(2 * AT_ONCE)]


class Slow(MemoryBroker):
    """A broker that needs a moment for each group."""

    asked = 0
    most = 0

    async def sources(self) -> Sequence[Source]:
        return list(reversed(SOURCES))

    async def lag(self, source: Source) -> Lag:
        self.asked += 1
        self.most = max(self.most, self.asked)
        await asyncio.sleep(0.01)
        self.asked -= 1
        if source.topic == "t00" and self.is_away:
            raise TimeoutError(source.topic)
        return Lag(int(source.topic[1:]), 0, 0, 0, 0.0)

    is_away = False


async def test_groups_are_asked_side_by_side_and_told_by_name() -> None:
    ports = system_ports("memory://")
    broker = Slow(clock=ports.clock)
    async with AsyncExitStack() as stack:
        found = await lags(broker, Inboxes("memory://", ports, stack))
        assert broker.most == AT_ONCE
        assert [row["topic"] for row in found] == [source.topic for source in SOURCES]
        assert [row["ready"] for row in found] == list(range(len(SOURCES)))
        broker.is_away = True
        with pytest.raises(TimeoutError, match="t00"):
            await lags(broker, Inboxes("memory://", ports, stack))
