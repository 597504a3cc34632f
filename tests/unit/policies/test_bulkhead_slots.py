"""The bulkhead: slots, places in its queue, and who gets them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from policies_kit import Remembering, Tracing, a_call, lock

from callcast.core.errors import BulkheadFull, Expired, Misuse
from callcast.core.work import Work
from callcast.policies.bulkhead import BulkheadLayer, Place, Slots
from callcast.policies.options import Bulkhead
from callcast.ports.observer import Observer, Rejected
from callcast.runtime.tasks import AsyncioGate
from callcast.testing.clock import ManualClock


class FakeGate:
    def __init__(self) -> None:
        self.is_open = False

    async def wait(self) -> None:
        return

    def open(self) -> None:
        self.is_open = True

    def shut(self) -> None:
        self.is_open = False


def some_slots(limit: int, queue: int = 0) -> Slots:
    return Slots(Bulkhead(limit, queue), lock=lock())


def test_who_waits_goes_in_in_order() -> None:
    slots = some_slots(1, 2)
    gates = [FakeGate() for _ in range(4)]
    assert slots.take()
    assert [slots.join(gate) for gate in gates] == [
        Place.QUEUED,
        Place.QUEUED,
        Place.FULL,
        Place.FULL,
    ]
    assert not slots.take()
    assert slots.leave() is gates[0]
    assert slots.leave() is gates[1]
    assert slots.inside == 1
    assert slots.leave() is None
    assert slots.inside == 0
    assert slots.join(gates[2]) is Place.TAKEN


def test_a_place_given_up_is_free_and_a_slot_that_came_too_late_goes_on() -> None:
    slots = some_slots(1, 2)
    first, second = FakeGate(), FakeGate()
    assert slots.take()
    slots.join(first)
    slots.join(second)
    assert slots.quit(first) is None
    assert slots.waiting == 1
    assert slots.leave() is second
    assert slots.quit(second) is None  # it had the slot: now nobody has
    assert slots.inside == 0


def test_a_limit_is_raised_and_lowered_live() -> None:
    slots = some_slots(1, 5)
    gates = [FakeGate() for _ in range(3)]
    assert slots.take()
    for gate in gates:
        slots.join(gate)
    assert slots.resize(3, 5) == gates[:2]
    assert (slots.inside, slots.waiting, slots.limit) == (3, 1, 3)
    assert slots.resize(1, 0) == []
    assert slots.leave() is None
    assert slots.leave() is None
    assert (slots.inside, slots.waiting) == (1, 1)
    assert slots.leave() is gates[2]
    with pytest.raises(Misuse):
        slots.resize(0, 0)


class FairQueue(RuleBasedStateMachine):
    """The slots against a model: a count of those inside and a list of those who wait."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = some_slots(2, 3)
        self.limit, self.queue, self.inside = 2, 3, 0
        self.waiting: deque[FakeGate] = deque()

    @rule()
    def enter(self) -> None:
        gate = FakeGate()
        place = self.slots.join(gate)
        if self.inside < self.limit and not self.waiting:
            assert place is Place.TAKEN
            self.inside += 1
        elif len(self.waiting) < self.queue:
            assert place is Place.QUEUED
            self.waiting.append(gate)
        else:
            assert place is Place.FULL

    @precondition(lambda self: self.inside)
    @rule()
    def leave(self) -> None:
        served = self.slots.leave()
        if self.waiting and self.inside <= self.limit:
            assert served is self.waiting.popleft()
        else:
            assert served is None
            self.inside -= 1

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 5))
    def give_up(self, number: int) -> None:
        gate = self.waiting[number % len(self.waiting)]
        self.waiting.remove(gate)
        assert self.slots.quit(gate) is None

    @rule(limit=st.integers(1, 6), queue=st.integers(0, 5))
    def resize(self, limit: int, queue: int) -> None:
        self.limit, self.queue = limit, queue
        served = self.slots.resize(limit, queue)
        free = max(0, min(limit - self.inside, len(self.waiting)))
        expected = [self.waiting.popleft() for _ in range(free)]
        self.inside += free
        assert served == expected

    @invariant()
    def counts_agree(self) -> None:
        assert (self.slots.inside, self.slots.waiting) == (self.inside, len(self.waiting))


TestItIsAFairQueueBeforeARoom = FairQueue.TestCase


def test_many_threads_never_exceed_the_limit_and_lose_no_slot() -> None:
    slots = some_slots(4)
    most, now_inside, counting = [0], [0], threading.Lock()

    def work() -> None:
        for _ in range(500):
            if slots.take():
                with counting:
                    now_inside[0] += 1
                    most[0] = max(most[0], now_inside[0])
                with counting:
                    now_inside[0] -= 1
                slots.leave()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most[0] <= 4
    assert slots.inside == 0


class Callee:
    """Holds every call until it is let go."""

    def __init__(self) -> None:
        self.running: list[asyncio.Future[str]] = []

    async def __call__(self, work: Work) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.running.append(future)
        return await future


def a_layer(slots: Slots, clock: ManualClock, seen: Observer) -> BulkheadLayer:
    return BulkheadLayer(slots, clock=clock, observer=seen, gate=AsyncioGate)


async def test_a_call_over_the_limit_is_rejected_and_told() -> None:
    seen, callee, clock = Remembering(), Callee(), ManualClock()
    slots = some_slots(1)
    layer = a_layer(slots, clock, seen)
    task = asyncio.ensure_future(layer(a_call(), callee))
    await clock.rest()
    with pytest.raises(BulkheadFull, match="1 calls are under way") as caught:
        await layer(a_call(), callee)
    assert caught.value.id == "call-1"
    assert seen.facts == [Rejected("inventory.stock", "inventory", "bulkhead")]
    callee.running[0].set_result("answer")
    assert await task == "answer"
    assert slots.inside == 0


class Counting(Tracing):
    """Counts who is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []

    @contextmanager
    def occupying(self, work: Work) -> Generator[None]:
        self.inside.append(work.id)
        try:
            yield
        finally:
            self.inside.remove(work.id)


async def test_an_attempt_is_counted_while_it_holds_a_slot_and_not_while_it_waits() -> None:
    seen, callee, clock = Counting(), Callee(), ManualClock()
    layer = a_layer(some_slots(2, 1), clock, seen)
    tasks = [asyncio.ensure_future(layer(a_call(), callee)) for _ in range(3)]
    await clock.rest()
    assert seen.inside == ["call-1"] * 2
    tasks[0].cancel()
    callee.running[1].set_exception(OSError("down"))
    await clock.rest()
    assert seen.inside == ["call-1"]  # the one that waited
    callee.running[2].set_result("answer")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen.inside == []


async def test_an_observer_that_does_not_count_hinders_nobody() -> None:
    async def answer(work: Work) -> str:
        return work.id

    assert await a_layer(some_slots(1), ManualClock(), Tracing())(a_call(), answer) == "call-1"


async def test_a_queued_call_goes_in_when_another_ends() -> None:
    seen, callee, clock = Remembering(), Callee(), ManualClock()
    slots = some_slots(1, 2)
    layer = a_layer(slots, clock, seen)
    tasks = [asyncio.ensure_future(layer(a_call(), callee)) for _ in range(3)]
    await clock.rest()
    assert len(callee.running) == 1
    callee.running[0].set_exception(OSError("down"))  # however it ends
    await clock.rest()
    assert len(callee.running) == 2
    callee.running[1].set_result("second")
    await clock.rest()
    callee.running[2].set_result("third")
    with pytest.raises(OSError, match="down"):
        await tasks[0]
    assert await tasks[1] == "second"
    assert await tasks[2] == "third"
    assert (slots.inside, slots.waiting) == (0, 0)


async def test_a_cancelled_call_in_the_queue_frees_its_place() -> None:
    callee, clock = Callee(), ManualClock()
    slots = some_slots(1, 1)
    layer = a_layer(slots, clock, Remembering())
    first = asyncio.ensure_future(layer(a_call(), callee))
    second = asyncio.ensure_future(layer(a_call(), callee))
    await clock.rest()
    second.cancel()
    await clock.rest()
    assert slots.waiting == 0
    third = asyncio.ensure_future(layer(a_call(), callee))
    await clock.rest()
    callee.running[0].set_result("first")
    await clock.rest()
    callee.running[1].set_result("third")
    assert await first == "first"
    assert await third == "third"
    assert slots.inside == 0


async def test_a_slot_that_comes_to_a_cancelled_call_goes_to_the_next() -> None:
    callee, clock = Callee(), ManualClock()
    slots = some_slots(1, 2)
    tasks: list[asyncio.Future[str]] = []

    class Unlucky(AsyncioGate):
        """Its caller is cancelled at the very moment when its slot comes."""

        def open(self) -> None:
            super().open()
            tasks[1].cancel()

    gates = [Unlucky(), AsyncioGate()]
    layer = BulkheadLayer(slots, clock=clock, observer=Remembering(), gate=lambda: gates.pop(0))
    tasks += [asyncio.ensure_future(layer(a_call(), callee)) for _ in range(3)]
    await clock.rest()
    callee.running[0].set_result("first")
    await clock.rest()
    assert tasks[1].cancelled()
    assert len(callee.running) == 2
    callee.running[1].set_result("third")
    assert await tasks[2] == "third"
    assert (slots.inside, slots.waiting) == (0, 0)


def test_a_queue_that_opens_while_a_slot_is_given_back_is_served() -> None:
    slots = some_slots(1)
    gate = FakeGate()
    assert slots.take()

    class Meanwhile(deque[None]):
        """Another thread opens the queue and joins it at the very moment of giving back."""

        def append(self, item: None) -> None:
            slots.resize(1, 1)
            slots._free = deque()
            assert slots.join(gate) is Place.QUEUED
            slots._free.append(item)

    slots._free = Meanwhile()
    assert slots.leave() is gate
    assert (slots.inside, slots.waiting) == (1, 0)


async def test_a_deadline_that_passes_in_the_queue_is_expired_and_nothing_was_sent() -> None:
    seen, callee, clock = Remembering(), Callee(), ManualClock()
    slots = some_slots(1, 1)
    layer = a_layer(slots, clock, seen)
    first = asyncio.ensure_future(layer(a_call(), callee))
    late = asyncio.ensure_future(layer(a_call(deadline=clock.now() + 1.0), callee))
    await clock.advance(1.0)
    with pytest.raises(Expired):
        await late
    assert len(callee.running) == 1
    assert slots.waiting == 0
    assert seen.facts == [Rejected("inventory.stock", "inventory", "bulkhead")]
    callee.running[0].set_result("first")
    await first


async def test_a_call_with_a_deadline_goes_in_in_time() -> None:
    callee, clock = Callee(), ManualClock()
    slots = some_slots(1, 1)
    layer = a_layer(slots, clock, Remembering())
    tasks = [
        asyncio.ensure_future(layer(a_call(deadline=clock.now() + 9.0), callee)) for _ in range(2)
    ]
    await clock.rest()
    callee.running[0].set_result("first")
    await clock.rest()
    callee.running[1].set_result("second")
    assert await asyncio.gather(*tasks) == ["first", "second"]


async def test_a_slot_that_is_freed_between_two_questions_is_taken() -> None:
    clock = ManualClock()
    slots = some_slots(1)
    layer = a_layer(slots, clock, Remembering())
    layer._take = lambda: False  # type: ignore[method-assign]  # it was full a moment ago

    async def answer(work: Work) -> str:
        return "answer"

    assert await layer(a_call(), answer) == "answer"
    assert repr(layer) == "Bulkhead(1)"
