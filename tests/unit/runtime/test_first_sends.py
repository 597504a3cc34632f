"""The first send of a contract, and a request: one deadline for all of it, and the id in each end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import pytest
from worker_parts import Recorder, ports_with

from callcast import Bus, Event, Message, Misuse, NotSent, Operation, Unanswered
from callcast.brokers.memory import MemoryBroker
from callcast.core.errors import Unavailable
from callcast.ports.broker import Source
from callcast.testing.clock import ManualClock

STOCK = Operation("inventory.stock", str, int, idempotent=True)
SEEN = Event("orders.seen", str, unheard=True)

Verb = Callable[[Bus], Coroutine[object, object, object]]


def publish(bus: Bus) -> Coroutine[object, object, object]:
    return bus.publish(SEEN, "tea", id="m-1")


def cast(bus: Bus) -> Coroutine[object, object, object]:
    return bus.cast(STOCK, "tea", id="m-1")


def request(bus: Bus) -> Coroutine[object, object, object]:
    return bus.request(STOCK, "tea", id="m-1", deadline=4.0)


class Slow(MemoryBroker):
    """Takes its time, or fails, as a test says."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.slow_clock = clock
        self.ensure_takes = self.publish_takes = 0.0
        self.ensure_raises: list[BaseException] = []
        self.ensured: list[str] = []

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        await self.slow_clock.sleep(self.ensure_takes)
        if self.ensure_raises:
            raise self.ensure_raises.pop(0)
        self.ensured.extend(topics)
        await super().ensure(topics, sources)

    async def publish(self, messages: Sequence[Message]) -> None:
        await self.slow_clock.sleep(self.publish_takes)
        await super().publish(messages)


class Stage:
    """A bus on a slow broker and a manual clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.broker = Slow(self.clock)
        self.bus = Bus(self.broker, name="shop", ports=ports_with(self.clock, Recorder()))

    async def ends_at(self, verb: Verb) -> tuple[float, BaseException | None]:
        """Seconds until the verb ends, to a tenth, and its error."""
        began = self.clock.now()
        sending = asyncio.ensure_future(verb(self.bus))
        await self.clock.rest()
        while not sending.done():
            await self.clock.advance(0.1)
        return round(self.clock.now() - began, 1), sending.exception()


@pytest.mark.parametrize("verb", [publish, cast, request])
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("what a driver says"),
        TimeoutError("the broker's own"),
        Unavailable("the broker is away"),
        NotSent("no connection"),
        Unanswered("the answer was lost"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_fails_before_the_first_send_is_not_sent_with_id_and_cause(
    verb: Verb, error: Exception
) -> None:
    stage = Stage()
    async with stage.bus as bus:
        stage.broker.ensure_raises = [error]
        with pytest.raises(NotSent) as caught:
            await verb(bus)
    assert caught.value.id == "m-1"
    assert caught.value.__cause__ is error
    assert str(error) in str(caught.value)


@pytest.mark.parametrize("verb", [publish, cast, request])
async def test_misuse_before_the_first_send_passes_as_it_is(verb: Verb) -> None:
    stage = Stage()
    async with stage.bus as bus:
        stage.broker.ensure_raises = [Misuse("the topic has other lanes")]
        with pytest.raises(Misuse, match="other lanes"):
            await verb(bus)


@pytest.mark.parametrize("verb", [publish, cast])
async def test_what_failed_before_the_first_send_is_tried_anew_at_the_next(verb: Verb) -> None:
    stage = Stage()
    async with stage.bus as bus:
        stage.broker.ensure_raises = [OSError("away")]
        with pytest.raises(NotSent):
            await verb(bus)
        assert await verb(bus) == "m-1"


@pytest.mark.parametrize("verb", [publish, cast])
async def test_a_broker_that_does_not_answer_before_the_first_send_is_not_sent_at_the_deadline(
    verb: Verb,
) -> None:
    stage = Stage()
    async with stage.bus:
        stage.broker.ensure_takes = 60.0
        took, error = await stage.ends_at(verb)
    assert took == 5.0
    assert isinstance(error, NotSent)
    assert error.id == "m-1"
    assert "did not answer by the deadline" in str(error)


@pytest.mark.parametrize("verb", [publish, cast])
async def test_the_first_send_and_what_comes_before_it_share_one_deadline(verb: Verb) -> None:
    stage = Stage()
    async with stage.bus:
        stage.broker.ensure_takes, stage.broker.publish_takes = 3.0, 60.0
        took, error = await stage.ends_at(verb)
    assert took == 5.0
    assert isinstance(error, Unanswered)
    assert error.id == "m-1"


async def test_a_first_send_that_nobody_could_take_makes_no_topic() -> None:
    stage = Stage()
    async with stage.bus as bus:
        with pytest.raises(Misuse, match="exceeds the limit"):
            await bus.publish(SEEN, "x" * 1_048_577)
    assert stage.broker.ensured == []


async def test_the_sending_of_a_request_counts_into_its_deadline() -> None:
    stage = Stage()
    async with stage.bus:
        stage.broker.publish_takes = 3.0
        took, error = await stage.ends_at(request)
        stage.broker.publish_takes = 0.0
    assert took == 4.0
    assert isinstance(error, Unanswered)
    assert error.id == "m-1"
    assert "no answer to 'inventory.stock' within 4 s" in str(error)


async def test_a_request_that_is_still_being_sent_at_its_deadline_is_unanswered() -> None:
    stage = Stage()
    async with stage.bus:
        stage.broker.publish_takes = 60.0
        took, error = await stage.ends_at(request)
    assert took == 4.0
    assert isinstance(error, Unanswered)
    assert error.id == "m-1"


async def test_a_request_whose_address_cannot_be_made_in_time_is_not_sent() -> None:
    stage = Stage()
    async with stage.bus:
        stage.broker.ensure_takes = 3.0  # for the address, and then for the queue
        took, error = await stage.ends_at(request)
    assert took == 4.0
    assert isinstance(error, NotSent)
    assert error.id == "m-1"


async def test_a_request_is_sent_within_the_publish_deadline_though_its_own_is_longer() -> None:
    stage = Stage()
    async with stage.bus as bus:
        stage.broker.publish_takes = 60.0
        took, error = await stage.ends_at(lambda _: bus.request(STOCK, "tea", deadline=30.0))
    assert took == 5.0
    assert isinstance(error, Unanswered)
