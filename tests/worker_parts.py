"""Parts for tests of the worker: ports that record, and a consumer that a test plays by hand."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence

from callcast.core.context import AMBIENT
from callcast.core.contract import Event
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Work
from callcast.policies.silent import Silent
from callcast.ports.broker import Consumer, Delivery, Lag, Part, Source
from callcast.ports.clock import Clock
from callcast.ports.failpoints import nowhere
from callcast.ports.observer import Fact, Observer
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription
from callcast.runtime.tasks import AsyncioTasks
from callcast.runtime.worker import Worker
from callcast.testing.clock import ManualClock

PLAIN = Source("orders", "mail")
ORDERED = Source("orders", "mail", ordered=True)
EVENT = Event("orders", bytes)


class Recorder(Silent):
    """Keeps the facts, and the ids of the messages in whose name they were told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.names: list[str] = []
        self.wants_success = True

    @property
    def hears_success(self) -> bool:
        return self.wants_success

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)
        context = AMBIENT.get()
        self.names.append("" if context is None else context.message_id)

    def named(self, kind: type[Fact]) -> list[str]:
        pairs = zip(self.facts, self.names, strict=True)
        return [name for fact, name in pairs if isinstance(fact, kind)]

    def of(self, kind: type[Fact]) -> list[Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


def ports_with(clock: Clock, observer: Observer) -> Ports:
    return Ports(
        clock=clock,
        dice=lambda: 0.5,
        new_id=lambda: "new",
        observer=observer,
        failpoints=nowhere,
    )


def message(name: str, *, key: str | None = None, time: float = 0.0) -> Message:
    return Message(name, "test", "orders", "orders", name.encode(), key=key, time=time)


def delivery(name: str, *, key: str | None = None, round: int = 0, crashes: int = 0) -> Delivery:
    return Delivery(message(name, key=key), round, crashes)


class FakeConsumer(Consumer):
    """Hands over what a test puts in; keeps what it is told."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Sequence[Delivery] | Exception] = asyncio.Queue()
        self.limits: list[int] = []
        self.settled: list[list[tuple[str, Outcome]]] = []
        self.renewed: list[list[str]] = []
        self.troubles: list[Exception] = []  # each raised by one settle, carried out or not
        self.hold_settles: asyncio.Event | None = None
        self.is_closed = False
        self.cancelled = 0
        self.renew_error: Exception | None = None
        self.close_error: Exception | None = None
        self.hangs_at_close = False

    def put(self, *deliveries: Delivery) -> None:
        self.batches.put_nowait(deliveries)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        self.limits.append(limit)
        try:
            batch = await self.batches.get()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(batch, Exception):
            raise batch
        return batch

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        if self.hold_settles is not None:
            await self.hold_settles.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        self.settled.append([(each.message.id, outcome) for each, outcome in verdicts])

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        self.renewed.append([each.message.id for each in deliveries])
        if self.renew_error is not None:
            raise self.renew_error

    async def close(self) -> None:
        self.is_closed = True
        if self.hangs_at_close:
            await asyncio.Event().wait()
        if self.close_error is not None:
            raise self.close_error

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """Ids and words of all that was settled, in order."""
        return [(name, type(each).__name__) for batch in self.settled for name, each in batch]

    def outcome(self, name: str) -> Outcome:
        outcomes = [outcome for batch in self.settled for each, outcome in batch if each == name]
        return outcomes[0]


class FakeFeed:
    """Gives out fake consumers; `consumers[-1]` is the one in use."""

    def __init__(self) -> None:
        self.consumers: list[FakeConsumer] = []
        self.lag_now: Lag | Exception = Lag()
        self.refusals: list[Exception] = []

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> FakeConsumer:
        if self.refusals:
            raise self.refusals.pop(0)
        self.consumers.append(FakeConsumer())
        return self.consumers[-1]

    async def lag(self, source: Source) -> Lag:
        if isinstance(self.lag_now, Exception):
            raise self.lag_now
        return self.lag_now


class Stage:
    """One worker on a fake feed, with a manual clock; `act` answers for the handler."""

    def __init__(self, source: Source = PLAIN) -> None:
        self.clock = ManualClock()
        self.observer = Recorder()
        self.ports = ports_with(self.clock, self.observer)
        self.failures: list[tuple[str, BaseException]] = []
        self.tasks = AsyncioTasks(lambda name, error: self.failures.append((name, error)))
        self.feed = FakeFeed()
        self.workers: list[Worker] = []
        self.source = source
        self.began: list[str] = []
        self.works: list[Work] = []
        self.gates: dict[str, asyncio.Future[Outcome]] = {}
        self.held: set[str] = set()  # ids whose handlers wait for `let`
        self.answers: dict[str, Outcome | BaseException] = {}

    async def run(self, work: Work) -> Outcome:
        self.began.append(work.id)
        self.works.append(work)
        if work.id in self.held:
            gate = self.gates[work.id] = asyncio.get_running_loop().create_future()
            return await gate
        answer = self.answers.get(work.id, DONE)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def let(self, name: str, outcome: Outcome = DONE) -> None:
        self.held.discard(name)
        self.gates.pop(name).set_result(outcome)

    def subscription(self, **changes: object) -> Subscription:
        settings: dict[str, object] = {
            "source": self.source,
            "contract": EVENT,
            "service": "mail",
            "handler": "shop.mail (mail.py:7)",
            "run": self.run,
            **changes,
        }
        return Subscription(**settings)  # type: ignore[arg-type]  # a table of changes

    async def worker(self, **changes: object) -> Worker:
        worker = Worker(self.feed, self.subscription(**changes), ports=self.ports, tasks=self.tasks)
        self.workers.append(worker)
        await worker.start()
        await self.clock.rest()
        return worker

    async def close(self) -> None:
        """End all workers, whatever they wait for."""
        for worker in self.workers:
            ending = asyncio.ensure_future(worker.drain(self.clock.now()))
            while not ending.done():
                await self.clock.advance(60.0)
            await ending
        await self.tasks.close()

    @property
    def consumer(self) -> FakeConsumer:
        return self.feed.consumers[-1]

    async def give(self, *deliveries: Delivery) -> None:
        self.consumer.put(*deliveries)
        await self.clock.rest()


Staged = Callable[..., Coroutine[object, object, None]]


def on_stage(source: Source = PLAIN) -> Callable[[Staged], Staged]:
    """Hand the test a `Stage` of its own as its first parameter, and end it with the test."""

    def decorate(test: Staged) -> Staged:
        @functools.wraps(test)
        async def run(**fixtures: object) -> None:
            stage = Stage(source)
            try:
                await test(stage, **fixtures)
            finally:
                await stage.close()

        rest = list(inspect.signature(test).parameters.values())[1:]
        run.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]  # pytest asks it
        del run.__wrapped__
        return run

    return decorate
