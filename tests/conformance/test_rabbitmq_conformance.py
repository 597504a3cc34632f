"""RabbitMQ passes the suite that every broker passes, on the real server."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.ports.broker import Broker, Consumer
from callcast.runtime.clock import AsyncioClock
from callcast.testing.broker_suite import BrokerSuite


def open_at(url: str) -> Broker:
    return RabbitBroker(url, clock=AsyncioClock())


class TestRabbit(BrokerSuite):
    lease = 1.5  # above a delay
    delay = 1.0
    grace = 0.05  # below a tenth of a delay
    arrival = 5.0
    looked = 0.0
    address: str

    @pytest.fixture(autouse=True)
    def server(self, rabbitmq_url: str) -> None:
        self.address = rabbitmq_url

    opener = f"{__name__}:open_at"

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.clear()

    async def clear(self) -> None:
        """The next cases are slow among thousands of queues."""
        broker = RabbitBroker(self.url(), clock=AsyncioClock())
        for source in await broker.sources():
            if source.topic.startswith(self.topic):
                await broker.retire(source)
        await broker.close()

    async def open(self) -> Broker:
        return open_at(self.url())

    async def open_keeping(self) -> Broker:
        return open_at(f"{self.url()}?retain=3600")

    def url(self) -> str:
        return self.address

    async def nothing(self, consumer: Consumer) -> None:
        before = time.monotonic()
        await super().nothing(consumer)
        self.looked += time.monotonic() - before

    async def pass_time(self, seconds: float) -> None:
        looked, self.looked = self.looked, 0.0  # looking took some of it already
        await asyncio.sleep(max(0.0, seconds - looked))
