"""Which dead letters count, as a worker, and so the metric, sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from callcast import Bus, Event, Refused, Service, Transaction
from callcast.brokers.memory import MemoryBroker, queue
from callcast.core.errors import Unavailable
from callcast.core.message import Message
from callcast.core.outcome import Dead
from callcast.ports.broker import Glimpse, Source
from callcast.ports.observer import Lagged
from callcast.runtime import dead_count as counting
from callcast.runtime.dead_count import LOOK_EVERY, Counted, dead_count
from callcast.testing.clock import ManualClock

SOURCE = Source("orders.placed", "billing")


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def broker(clock: ManualClock) -> AsyncGenerator[MemoryBroker]:
    made = MemoryBroker(clock)
    await made.ensure([], [SOURCE])
    await die(made, "a", "b", "c")
    yield made
    await made.close()


def message(name: str) -> Message:
    return Message(name, "orders", SOURCE.topic, SOURCE.topic, name.encode())


async def die(broker: MemoryBroker, *names: str) -> None:
    await broker.publish([message(name) for name in names])
    worker = await broker.consume(SOURCE)
    await worker.settle([(each, Dead("no")) for each in await worker.fetch(10, 0.0)])
    await worker.close()


class Handled:
    """An inbox: what it knows, how often it was asked, and how it fails."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.asked = 0
        self.error: Exception | None = None
        self.is_stuck = False

    async def __call__(self, message: Message) -> bool:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.is_stuck:
            await asyncio.Event().wait()
        return message.id in self.known


async def test_what_the_inbox_knows_does_not_count(broker: MemoryBroker) -> None:
    assert await dead_count(broker, SOURCE, 3, is_handled=Handled("b", "c")) == 1
    assert await dead_count(broker, SOURCE, 3, is_handled=Handled()) == 3
    assert await dead_count(broker, SOURCE, 3, is_handled=None) == 3


async def test_copies_count_once(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "is_same", lambda *_: False)
    await die(broker, "a", "b")
    monkeypatch.setattr(MemoryBroker, "traits", replace(broker.traits, collapses_letters=False))
    assert (await broker.lag(SOURCE)).dead == 5
    assert await dead_count(broker, SOURCE, 5, is_handled=None) == 3
    assert await dead_count(broker, SOURCE, 5, is_handled=Handled("a")) == 2


async def test_letters_are_looked_at_page_by_page_up_to_a_limit(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PAGE", 1)
    monkeypatch.setattr(counting, "LOOKED_MAX", 2)
    handled = Handled("a", "b", "c")
    assert await dead_count(broker, SOURCE, 3, is_handled=handled) == 1
    assert handled.asked == 2


async def test_a_worker_looks_again_when_more_are_dead_or_after_a_while(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    handled = Handled("a")
    feed = Counted(broker, clock, handled)
    for _ in range(3):
        assert (await feed.lag(SOURCE)).dead == 2
    assert handled.asked == 3
    handled.known.add("b")
    await clock.advance(LOOK_EVERY)
    assert (await feed.lag(SOURCE)).dead == 1
    await die(broker, "d")
    assert (await feed.lag(SOURCE)).dead == 2


@pytest.mark.parametrize("error", [Unavailable("the disk is gone"), None])
async def test_a_look_that_fails_or_takes_too_long_leaves_the_lag_as_it_is(
    broker: MemoryBroker, clock: ManualClock, error: Exception | None
) -> None:
    handled = Handled("a")
    handled.error, handled.is_stuck = error, error is None
    looking = asyncio.create_task(Counted(broker, clock, handled).lag(SOURCE))
    await clock.advance(counting.LOOK_MAX * 2)
    assert (await looking).dead == 3


async def test_where_nothing_is_dead_nothing_is_looked_at(clock: ManualClock) -> None:
    broker = MemoryBroker(clock)
    await broker.ensure([], [SOURCE])

    async def refuse(*_: object, **__: object) -> Sequence[Glimpse]:
        raise AssertionError

    broker.browse = refuse  # type: ignore[method-assign]
    assert (await Counted(broker, clock, Handled()).lag(SOURCE)).dead == 0
    await broker.close()


async def test_the_metric_of_a_bus_forgets_a_letter_whose_copy_was_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same message, delivered twice: refused at first, then handled."""
    event = Event("orders.placed", str)
    service = Service("stock")
    refusals = ["first"]

    @service.on(event)
    async def pack(_order: str, tx: Transaction) -> None:
        await tx.fetch("select 1")
        if refusals:
            raise Refused(refusals.pop())

    async with Bus("memory://", services=[service]) as bus:
        [host] = bus._engine.running.hosts
        [worker] = host.workers
        told: list[int] = []
        tell = worker._ports.observer.tell

        def watch(fact: Any) -> None:
            if isinstance(fact, Lagged):
                told.append(fact.dead)
            tell(fact)

        monkeypatch.setattr(worker._ports.observer, "tell", watch)
        for _ in range(2):
            await bus.publish(event, "o-1", id="same")
            await bus.idle()
            await worker._look_at_lag()
            worker._feed._feed._known.clear()  # as after a minute
    assert told == [1, 0]
