"""The memory broker passes the suite that every broker passes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from callcast.brokers.memory import MemoryBroker
from callcast.ports.broker import Broker
from callcast.testing.broker_suite import BrokerSuite
from callcast.testing.clock import ManualClock


class TestMemory(BrokerSuite):
    clock: ManualClock

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        self.clock = ManualClock()
        yield

    async def open(self) -> Broker:
        return MemoryBroker(self.clock)

    async def open_keeping(self) -> Broker:
        return MemoryBroker(self.clock, retain=3600.0)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def wall(self) -> float:
        return self.clock.wall()
