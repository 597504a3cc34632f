"""What the cases of the suite stand on: a storage for each case, brokers on it, time, helpers."""

from __future__ import annotations

import abc
import asyncio
import functools
import secrets
import time
import unittest
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeVar

from callcast.core.message import NO_HEADERS, Message
from callcast.core.outcome import DONE, Outcome
from callcast.ports.broker import Broker, Consumer, Delivery, Part, Source, Start

S = TypeVar("S", bound="Harness")
R = TypeVar("R")
A = TypeVar("A")
E = TypeVar("E", bound=BaseException)

LONG = 6.0
"""How many times the patience of a case a long one has."""
FETCHES_MAX = 10_000
"""Fetches after which a case that gathers messages gives up."""


def case(body: Callable[[S], Coroutine[object, object, None]]) -> Callable[[S], None]:
    """Make a coroutine a test that any runner can call: it runs in an event loop of its own."""
    return _runnable(body, 1.0)


def long_case(body: Callable[[S], Coroutine[object, object, None]]) -> Callable[[S], None]:
    """A case with more patience: it starts processes, or waits for several leases."""
    return _runnable(body, LONG)


def _runnable(
    body: Callable[[S], Coroutine[object, object, None]], factor: float
) -> Callable[[S], None]:
    @functools.wraps(body)
    def run(self: S) -> None:
        patience = self.patience * factor
        asyncio.run(self.run_case(functools.partial(body, self), patience))

    del run.__wrapped__  # pytest would look for fixtures, pytest-asyncio for a coroutine
    return run


class Harness(abc.ABC):
    """The hooks that a subclass fills in, and the helpers that the cases use."""

    patience: float = 30.0
    """Real seconds after which a case that has not ended fails."""
    lease: float = 30.0
    """Seconds of a lease in the cases; a broker on the real clock takes about 1."""
    delay: float = 10.0
    """Seconds of a delay in the cases; a broker on the real clock takes about 0.5."""
    grace: float = 0.0
    """Seconds that a fetch needs to find what is there; 0 when it finds it at once."""
    arrival: float = 0.0
    """Seconds for what must come, on a broker that hands over what it has when it comes."""
    opener: str = ""
    """``module:callable`` that makes a broker from `url()` in a child process (on real time)."""
    child_lease: float = 1.0
    """Seconds of a lease in child processes."""

    broker: Broker
    topic: str

    @abc.abstractmethod
    async def open(self) -> Broker:
        """A broker on the storage of this case; again, where shared, one more on the same."""

    async def open_keeping(self) -> Broker:
        """The same, one that keeps what was consumed; override where that is an option."""
        return await self.open()

    @abc.abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass for the broker: move its clock, or really wait."""

    async def wall(self) -> float:
        """The broker's wall clock, in seconds since the epoch."""
        return time.time()  # noqa: TID251 - outsiders' brokers run on the real clock

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        """Around each case: make a storage that no other case has seen, and clear it away."""
        yield

    def url(self) -> str:
        """What `opener` is called with: the storage of this case."""
        return ""

    def refuse_settles(self) -> AbstractContextManager[object] | None:
        """Inside it the broker cannot carry out a verdict; None when it always can."""
        return None

    # Running a case

    async def run_case(
        self, body: Callable[[], Coroutine[object, object, None]], patience: float
    ) -> None:
        """Run one case within so many real seconds, on a fresh storage; close what it opened."""
        self.topic = f"suite.t{secrets.token_hex(4)}"
        self._opened: list[Broker] = []
        self._joined: list[Consumer] = []
        self._tasks: list[asyncio.Task[object]] = []
        try:
            async with asyncio.timeout(patience), self.storage():
                try:
                    self.broker = await self.another()
                    await body()
                finally:
                    await self._tidy()
        except TimeoutError as error:
            raise AssertionError(f"the case did not end within {patience} s") from error

    async def _tidy(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for broker in self._opened:
            await broker.close()

    def skip(self, why: str) -> None:
        """Leave this case out, saying which trait or ability is the reason."""
        raise unittest.SkipTest(why)

    def need(self, ability: type[A]) -> A:
        """The broker as one with this ability, or leave the case out."""
        if not isinstance(self.broker, ability):
            self.skip(f"{self.broker.traits.name} lacks the ability {ability.__name__}")
        assert isinstance(self.broker, ability)
        return self.broker

    def start(self, work: Coroutine[object, object, R]) -> asyncio.Task[R]:
        """Let it run beside the case; what still runs at its end is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def another(self) -> Broker:
        """One more broker on the same storage, or the same one where that cannot be."""
        if self._opened and not self.broker.traits.shared:
            return self.broker
        broker = await self.open()
        self._opened.append(broker)
        return broker

    async def reopen(self) -> None:
        """Close the broker and open it again, as a restart does; a case about what survives."""
        if not self.broker.traits.durable:
            self.skip(f"{self.broker.traits.name} is not durable")
        await self.broker.close()
        self.broker = await self.open()
        self._opened.append(self.broker)

    async def keep(self) -> None:
        """Go on with a broker that keeps what is published."""
        await self.broker.close()
        self.broker = await self.open_keeping()
        self._opened.append(self.broker)

    # Helpers of the cases

    def source(
        self, group: str = "billing", *, ordered: bool = False, start: Start = Start.NEW
    ) -> Source:
        """A source on the topic of this case."""
        return Source(self.topic, group, ordered=ordered, start=start)

    async def listen(
        self, group: str = "billing", *, ordered: bool = False, start: Start = Start.NEW
    ) -> Source:
        """A source that is there."""
        source = self.source(group, ordered=ordered, start=start)
        await self.broker.ensure([self.topic], [source])
        return source

    async def join(self, source: Source, *, part: Part = Part.READY) -> Consumer:
        """A consumer with the lease of this suite."""
        consumer = await self.broker.consume(source, part=part, lease=self.lease)
        self._joined.append(consumer)
        return consumer

    async def leave(self) -> None:
        """Close all consumers that joined."""
        for consumer in self._joined:
            await consumer.close()

    def message(self, name: str, *, key: str | None = None, body: bytes | None = None) -> Message:
        """A message on the topic of this case; its id and, by default, its body is its name."""
        return Message(
            id=name,
            source="suite",
            type=self.topic,
            topic=self.topic,
            body=name.encode() if body is None else body,
            key=key,
            headers=NO_HEADERS,
        )

    async def publish(self, *names: str, key: str | None = None) -> list[str]:
        """Publish one message per name, in one batch; the names."""
        await self.broker.publish([self.message(name, key=key) for name in names])
        return list(names)

    async def take(self, consumer: Consumer, count: int) -> list[Delivery]:
        """So many deliveries; fails when the broker has fewer."""
        taken: list[Delivery] = []
        for _ in range(FETCHES_MAX):
            if len(taken) >= count:
                break
            wait = max(self.grace, self.arrival)
            fetched = await consumer.fetch(count - len(taken), wait)
            if not fetched:
                break
            taken.extend(fetched)
        assert len(taken) == count, f"wanted {count} deliveries, got {ids(taken)}"
        return taken

    async def take_one(self, consumer: Consumer) -> Delivery:
        """One delivery."""
        return (await self.take(consumer, 1))[0]

    async def take_all(self, consumer: Consumer) -> list[Delivery]:
        """All that this consumer can have now."""
        taken: list[Delivery] = []
        for _ in range(FETCHES_MAX):
            fetched = await consumer.fetch(100, self.grace)
            if not fetched:
                break
            taken.extend(fetched)
        return taken

    async def finish(self, consumer: Consumer) -> list[str]:
        """Handle all that there is now, which is something; its ids in their order."""
        done: list[str] = []
        wait = max(self.grace, self.arrival)
        for _ in range(FETCHES_MAX):
            fetched = await consumer.fetch(100, wait)
            if not fetched:
                break
            await settle(consumer, fetched, DONE)
            done.extend(ids(fetched))
            wait = self.grace
        return done

    async def nothing(self, consumer: Consumer) -> None:
        """Fail when there is something for this consumer now."""
        fetched = await consumer.fetch(100, self.grace)
        assert not fetched, f"nothing was expected, {ids(fetched)} came"

    async def crash(self, source: Source, times: int = 1) -> None:
        """Have a worker take all that there is and die with it, so many times."""
        for _ in range(times):
            consumer = await self.join(source)
            taken = await self.take_all(consumer)
            assert taken, "there is nothing to die with"
            await self.pass_time(self.lease * 1.1)


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Which messages these are."""
    return [delivery.message.id for delivery in deliveries]


async def settle(consumer: Consumer, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
    """One verdict for all of them."""
    await consumer.settle([(delivery, outcome) for delivery in deliveries])


async def raised(kind: type[E], work: Awaitable[object]) -> E:
    """The error of this kind that the work must end with."""
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")
