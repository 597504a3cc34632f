"""Parts for tests of the coalescer: a broker that a test plays, and a coalescer before it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import cast

from worker_parts import Recorder, message, ports_with

from callcast.core.message import Message
from callcast.policies.options import CircuitBreaker
from callcast.ports.broker import Broker, Traits
from callcast.runtime.coalescer import Coalescer
from callcast.runtime.tasks import AsyncioTasks
from callcast.testing.clock import ManualClock


class Desk:
    """A broker whose publishes a test lets through one by one, or all at once."""

    traits = Traits(name="desk")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate: asyncio.Event | None = None
        self.errors: list[BaseException] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self.batches.append([each.id for each in messages])
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


class Post:
    """A coalescer before a desk, on a manual clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.observer = Recorder()
        self.failures: list[BaseException] = []
        self.tasks = AsyncioTasks(lambda name, error: self.failures.append(error))
        self.desk = Desk()
        self.open()

    def open(self, *, breaker: CircuitBreaker | None = None, **limits: int) -> None:
        ports = ports_with(self.clock, self.observer)
        broker = cast("Broker", self.desk)
        self.coalescer = Coalescer(broker, ports=ports, tasks=self.tasks, breaker=breaker, **limits)

    def send(self, name: str, *, within: float = 5.0) -> asyncio.Future[None]:
        deadline = self.clock.now() + within
        return asyncio.ensure_future(self.coalescer.publish(message(name), deadline))

    async def sent(self, *names: str, within: float = 5.0) -> list[asyncio.Future[None]]:
        sends = [self.send(name, within=within) for name in names]
        await self.clock.rest()
        return sends


Posted = Callable[..., Coroutine[object, object, None]]


def with_post(test: Posted) -> Posted:
    @functools.wraps(test)
    async def run(**fixtures: object) -> None:
        post = Post()
        try:
            await test(post, **fixtures)
        finally:
            await post.coalescer.close(post.clock.now())
            await post.tasks.close()
        assert post.failures == []

    rest = list(inspect.signature(test).parameters.values())[1:]
    run.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]  # pytest asks it
    del run.__wrapped__  # type: ignore[attr-defined]
    return run
