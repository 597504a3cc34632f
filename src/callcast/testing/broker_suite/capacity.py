"""Many messages, many consumers, many keys."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from callcast.core.outcome import DONE
from callcast.ports.broker import Consumer
from callcast.testing.broker_suite.harness import Harness, case, ids, settle


class Capacity(Harness):
    """Cases about size."""

    messages: int = 3_000
    consumers: int = 30

    @case
    async def test_thousands_of_messages_reach_tens_of_consumers_once_each(self) -> None:
        source = await self.listen()
        brokers = [self.broker, await self.another()]
        done = Counter[str]()

        async def work(consumer: Consumer) -> None:
            while sum(done.values()) < self.messages:
                fetched = await consumer.fetch(64, 0.5)
                await settle(consumer, fetched, DONE)
                done.update(ids(fetched))

        names = [f"m{number}" for number in range(self.messages)]
        for start in range(0, self.messages, 500):
            await self.publish(*names[start : start + 500])
        workers = [
            self.start(work(await brokers[number % 2].consume(source, lease=self.lease)))
            for number in range(self.consumers)
        ]
        running = asyncio.gather(*workers)
        while not running.done():
            await self.pass_time(0.1)
        await running
        assert done == Counter(names)

    @case
    async def test_a_thousand_keys_keep_their_order(self) -> None:
        source = await self.listen(ordered=True)
        batch = [self.message(f"{n}", key=f"k{n % 1_000}") for n in range(3_000)]
        await self.broker.publish(batch)
        workers = [await self.join(source) for _ in range(10)]
        done: dict[str | None, list[int]] = defaultdict(list)
        fetched = 1
        while fetched:
            fetched = 0
            for worker in workers:
                taken = await worker.fetch(100, self.grace)
                await settle(worker, taken, DONE)
                fetched += len(taken)
                for one in taken:
                    done[one.message.key].append(int(one.message.id))
        assert done == {f"k{n}": [n, n + 1_000, n + 2_000] for n in range(1_000)}
