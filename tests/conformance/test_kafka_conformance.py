"""Kafka passes the suite that every broker passes, on a real server."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from confluent_kafka.admin import AdminClient

from callcast.brokers.kafka import KafkaBroker, options_of
from callcast.ports.broker import Broker, Consumer
from callcast.runtime.clock import AsyncioClock
from callcast.testing.broker_suite import BrokerSuite


def open_at(url: str) -> Broker:
    return KafkaBroker(options_of(url, {}), clock=AsyncioClock())


# A process that is killed takes its partitions with it until its session ends. Servers of
# `scripts/servers` allow short ones; 6 s are the shortest elsewhere: ten kills take over a minute.
SESSION = 6 if "CALLCAST_TEST_KAFKA_URL" in os.environ else 3


@pytest.mark.timeout(300)
class TestKafka(BrokerSuite):
    lease = 2.0
    delay = 1.0
    patience = 60.0
    opener = f"{__name__}:open_at"
    child_lease = 2.0
    looked = 0.0
    server = ""

    @pytest.fixture(autouse=True)
    def _server(self, kafka_url: str) -> None:
        self.server = kafka_url

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(self.clear)

    def clear(self) -> None:
        """The next cases are slow among thousands of topics."""
        servers = self.server.removeprefix("kafka://")
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})
        made = [name for name in admin.list_topics(timeout=30).topics if self.topic in name]
        for future in admin.delete_topics(made).values() if made else ():
            future.result()

    async def open(self) -> Broker:
        return open_at(self.url())

    def url(self) -> str:
        return f"{self.server}?partitions=4&session={SESSION}"

    async def nothing(self, consumer: Consumer) -> None:
        before = time.monotonic()
        await super().nothing(consumer)
        self.looked += time.monotonic() - before

    async def pass_time(self, seconds: float) -> None:
        looked, self.looked = self.looked, 0.0  # looking took some of it already
        await asyncio.sleep(max(0.0, seconds - looked))

    # With two brokers a partition may have to move, which takes longer than a lease of this suite.

    def test_what_one_worker_holds_no_other_gets(self) -> None:
        self.lease = 9.0
        super().test_what_one_worker_holds_no_other_gets()

    def test_a_renewed_lease_holds(self) -> None:
        self.lease = 9.0
        super().test_a_renewed_lease_holds()

    def test_a_key_is_with_one_worker_at_a_time(self) -> None:
        self.lease = 9.0
        super().test_a_key_is_with_one_worker_at_a_time()
