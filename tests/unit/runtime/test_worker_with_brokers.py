"""Several workers on real brokers: nothing lost, each key in order, whatever handlers answer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from worker_parts import EVENT, Recorder, message, ports_with

from callcast.brokers.memory import MemoryBroker
from callcast.brokers.sqlite import SqliteBroker
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Work
from callcast.ports.broker import Broker, Source
from callcast.ports.observer import LeaseLost
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.leases import Leases
from callcast.runtime.subscription import Subscription
from callcast.runtime.tasks import AsyncioTasks
from callcast.runtime.worker import Worker

KEYS = 12
EACH = 25
WORKERS = 3


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    clock = AsyncioClock()
    made: Broker = (
        MemoryBroker(clock)
        if request.param == "memory"
        else SqliteBroker(tmp_path / "bus.db", clock=clock)
    )
    yield made
    await made.close()


class Crew:
    """Workers on one source, and what their handlers did."""

    def __init__(self, broker: Broker, source: Source, seed: int) -> None:
        self.broker = broker
        self.source = source
        self.dice = random.Random(seed)
        self.observer = Recorder()
        self.failures: list[object] = []
        self.tasks = AsyncioTasks(lambda name, error: self.failures.append((name, error)))
        self.clock = AsyncioClock()
        self.leases = Leases(self.clock)
        self.finished: Counter[str] = Counter()
        self.next: defaultdict[str, int] = defaultdict(int)
        self.disorder: list[str] = []
        self.running: set[str] = set()

    async def run(self, work: Work) -> Outcome:
        key, number = work.id.split(".")
        if self.source.ordered and (self.next[key] != int(number) or key in self.running):
            self.disorder.append(f"{work.id} ran, expected {self.next[key]}")
        self.running.add(key)
        try:
            if self.dice.random() < 0.5:
                await asyncio.sleep(self.dice.choice([0, 0, 0.001, 0.003]))
        finally:
            self.running.discard(key)
        outcome = self.dice.choices(
            [DONE, Later(0.01), Release(0.0), Release(0.01), Dead("no")], [70, 10, 5, 5, 10]
        )[0]
        if isinstance(outcome, type(DONE) | Dead):
            self.finished[work.id] += 1
            self.next[key] = int(number) + 1
        return outcome

    def worker(self) -> Worker:
        subscription = Subscription(
            source=self.source,
            contract=EVENT,
            service="mail",
            handler="crew",
            run=self.run,
            slots=self.dice.choice([2, 7, 64]),
        )
        ports = ports_with(self.clock, self.observer)
        return Worker(self.broker, subscription, ports=ports, tasks=self.tasks, leases=self.leases)

    async def publish(self) -> None:
        batch = [
            message(f"{key}.{number}", key=f"k{key}")
            for number in range(EACH)
            for key in range(KEYS)
        ]
        for start in range(0, len(batch), 40):
            await self.broker.publish(batch[start : start + 40])

    async def is_done(self) -> None:
        deadline = self.clock.now() + 30
        while len(self.finished) < KEYS * EACH:
            assert self.clock.now() < deadline, f"{len(self.finished)} finished"
            assert not self.disorder, self.disorder
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ordered", [True, False])
async def test_whatever_handlers_answer_nothing_is_lost_and_each_key_is_in_order(
    broker: Broker, seed: int, *, ordered: bool
) -> None:
    source = Source("orders", "mail", ordered=ordered)
    await broker.ensure(["orders"], [source])
    crew = Crew(broker, source, seed)
    workers = [crew.worker() for _ in range(WORKERS)]
    try:
        for worker in workers:
            await worker.start()
        await crew.publish()
        await asyncio.sleep(0.05)
        # One is drained in the middle and another takes its place.
        await workers[0].drain(crew.clock.now() + 0.002)
        workers.append(crew.worker())
        await workers[-1].start()
        await crew.is_done()
    finally:
        until = crew.clock.now() + 5
        await asyncio.gather(*(worker.drain(until) for worker in workers))
        await crew.tasks.close()
    assert crew.disorder == []
    assert crew.failures == []
    assert crew.observer.of(LeaseLost) == []
    assert set(crew.finished.values()) == {1}
    lag = await broker.lag(source)
    assert (lag.ready, lag.leased, lag.delayed) == (0, 0, 0)


async def test_a_hung_handlers_message_goes_to_somebody_else_and_its_late_verdict_is_lost(
    broker: Broker,
) -> None:
    await broker.ensure(["orders"], [Source("orders", "mail")])
    crew = Crew(broker, Source("orders", "mail"), seed=0)
    began: list[str] = []
    first_may_end = asyncio.Event()

    async def hangs_once(work: Work) -> Outcome:
        began.append(work.id)
        if len(began) == 1:
            await first_may_end.wait()
        return DONE

    subscription = Subscription(
        source=crew.source,
        contract=EVENT,
        service="mail",
        handler="hangs_once",
        run=hangs_once,
        slots=1,
        timeout=0.3,
        lease=0.6,
    )
    ports = ports_with(crew.clock, crew.observer)
    workers = [
        Worker(broker, subscription, ports=ports, tasks=crew.tasks, leases=crew.leases)
        for _ in range(2)
    ]
    try:
        for worker in workers:
            await worker.start()
        start = crew.clock.now()
        await broker.publish([message("1")])
        while len(began) < 2:
            assert crew.clock.now() < start + 30
            await asyncio.sleep(0.01)
        # Renewed until its timeout had passed, and a lease after that at most.
        assert crew.clock.now() - start >= 0.3
        first_may_end.set()
        while not crew.observer.of(LeaseLost):
            assert crew.clock.now() < start + 30
            await asyncio.sleep(0.01)
    finally:
        until = crew.clock.now() + 5
        await asyncio.gather(*(worker.drain(until) for worker in workers))
        await crew.tasks.close()
    assert crew.observer.of(LeaseLost) == [LeaseLost("orders/mail", 1, ("1",), ("1",), ("",))]
    assert (await broker.lag(crew.source)).leased == 0


async def test_a_message_released_at_shutdown_is_not_counted(broker: Broker) -> None:
    await broker.ensure(["orders"], [Source("orders", "mail")])
    crew = Crew(broker, Source("orders", "mail"), seed=0)
    works: list[Work] = []

    async def waits(work: Work) -> Outcome:
        works.append(work)
        if len(works) < 4:
            await asyncio.Event().wait()
        return DONE

    await broker.publish([message("1")])
    for count in range(1, 5):
        subscription = Subscription(
            source=crew.source, contract=EVENT, service="mail", handler="waits", run=waits
        )
        ports = ports_with(crew.clock, crew.observer)
        worker = Worker(broker, subscription, ports=ports, tasks=crew.tasks, leases=crew.leases)
        await worker.start()
        start = crew.clock.now()
        while len(works) < count:
            assert crew.clock.now() < start + 30
            await asyncio.sleep(0.005)
        await worker.drain(crew.clock.now())
    assert [(work.round, work.crashes) for work in works] == [(0, 0)] * 4
    lag = await broker.lag(crew.source)
    assert (lag.ready, lag.leased, lag.delayed) == (0, 0, 0)
