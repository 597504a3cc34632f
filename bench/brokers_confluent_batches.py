"""confluent-kafka under asyncio where no two handlers run side by side: no task for each record."""

from __future__ import annotations

from brokers_confluent import Batches, publisher, running
from brokers_work import coroutines
from work import Order


class OneByOne(Batches):
    """Handles one after the other."""

    async def handle_all(self, orders: list[Order]) -> None:
        for order in orders:
            await self.handler(order)


WORK = coroutines(publisher, lambda task, handle: running(OneByOne(task, handle)))
