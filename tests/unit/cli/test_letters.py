"""Dead letters: read, filtered, and sent again to the group that failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from msgspec.structs import replace

from callcast.brokers.memory import MemoryBroker, queue
from callcast.cli.letters import (
    Filter,
    Hand,
    Redrive,
    Redriven,
    Wanted,
    browse,
    is_of_broker,
    letter_of,
    redriven,
)
from callcast.core.errors import (
    CallcastError,
    CircuitOpen,
    Misuse,
    NotSent,
    Unanswered,
    Unavailable,
    Unpublished,
)
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead
from callcast.ports.broker import Source
from callcast.testing.clock import ManualClock

BILLING = Source("orders.placed", "billing")
STOCK = Source("orders.placed", "stock")
NOTES = {
    "callcast-error-type": "builtins.ValueError",
    "callcast-error-message": "bad sku",
    "callcast-error-stack": "Traceback ...",
    "callcast-attempts": "20",
    "callcast-handler": "shop.pack",
    "callcast-first-failed-at": "2026-01-01T00:00:00.000Z",
    "callcast-last-failed-at": "2026-01-01T01:00:00.000Z",
}


def message(id_: str, **fields: object) -> Message:
    return Message(id_, "orders", "orders.placed", "orders.placed", b"{}", **fields)  # type: ignore[arg-type]


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def broker(clock: ManualClock) -> AsyncGenerator[MemoryBroker]:
    made = MemoryBroker(clock)
    await made.ensure(["orders.placed"], [BILLING, STOCK])
    yield made
    await made.close()


async def die(broker: MemoryBroker, *messages: Message, source: Source = BILLING) -> None:
    """Publish these, and let them die in one group."""
    await broker.publish(messages)
    for each in (BILLING, STOCK):
        consumer = await broker.consume(each)
        deliveries = await consumer.fetch(100, 0.0)
        verdict = Dead("bad sku", NOTES) if each is source else DONE
        await consumer.settle([(delivery, verdict) for delivery in deliveries])
        await consumer.close()


async def ready(broker: MemoryBroker, source: Source) -> Sequence[Message]:
    consumer = await broker.consume(source)
    deliveries = await consumer.fetch(100, 0.0)
    await consumer.close()
    return [delivery.message for delivery in deliveries]


async def redrive(
    broker: MemoryBroker, clock: ManualClock, wanted: Wanted, rate: float = 0.0
) -> list[Redriven]:
    work = Redrive(broker, wanted, clock=clock, by="ops", rate=rate)
    return [result async for result in work()]


async def test_a_letter_says_what_its_headers_say(broker: MemoryBroker) -> None:
    await die(broker, message("a", key="k"))
    [(letter, original)] = [each async for each in browse(broker, Wanted())]
    assert original.body == b"{}"
    assert (letter.id, letter.group, letter.key, letter.attempts) == ("a", "billing", "k", 20)
    assert (letter.error_type, letter.reason) == ("builtins.ValueError", "bad sku")
    assert letter.redriven == 0
    assert letter.superseded is None


def test_a_letter_of_somebody_else_may_lack_all_headers() -> None:
    letter = letter_of(BILLING, message("a", headers={"callcast-attempts": "many"}))
    assert (letter.attempts, letter.reason, letter.handler) == (0, "", "")


async def test_a_redriven_letter_goes_only_to_the_group_that_failed(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    await die(broker, message("a"))
    assert await redrive(broker, clock, Wanted()) == [Redriven("a", "orders.placed", "billing")]
    assert [m.id for m in await ready(broker, BILLING)] == ["a"]
    assert await ready(broker, STOCK) == []
    assert [letter async for letter, _ in browse(broker, Wanted())] == []


def test_a_redriven_message_keeps_its_id_and_loses_the_notes_of_its_failure() -> None:
    dead = message("a", headers={**NOTES, "callcast-dead-reason": "x", "tenant": "t"}, expires=1.0)
    once = redriven(dead, "billing", "ops")
    assert (once.id, once.group, once.expires, once.body) == ("a", "billing", None, b"{}")
    assert dict(once.headers) == {
        "tenant": "t",
        "callcast-first-failed-at": NOTES["callcast-first-failed-at"],
        "callcast-redrive-count": "1",
        "callcast-redriven-by": "ops",
    }
    assert redriven(once, "billing", "ops").headers["callcast-redrive-count"] == "2"


async def test_only_wanted_letters_are_redriven_and_the_others_stay(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    await die(broker, message("a"), message("b"), message("c"))
    results = await redrive(broker, clock, Wanted(ids=["b"]))
    assert [result.id for result in results] == ["b"]
    assert [letter.id async for letter, _ in browse(broker, Wanted())] == ["a", "c"]


async def test_a_group_without_dead_letters_is_left_alone(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    await die(broker, message("a"))
    assert await redrive(broker, clock, Wanted(group="stock")) == []


async def test_a_rate_spreads_letters_over_time(broker: MemoryBroker, clock: ManualClock) -> None:
    await die(broker, *[message(str(number)) for number in range(3)])
    began, sent = clock.now(), []

    async def work() -> None:
        redriving = Redrive(broker, Wanted(), clock=clock, by="ops", rate=2.0)()
        sent.extend([clock.now() - began async for _ in redriving])

    working = asyncio.create_task(work())
    await clock.advance(5.0)
    await working
    assert sent == pytest.approx([0.0, 0.5, 1.0])


async def test_a_letter_that_cannot_be_sent_stays_dead_and_is_told(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await die(broker, message("a"), message("b"))
    publish = broker.publish

    async def refuse(messages: Sequence[Message]) -> None:
        if messages[0].id == "a":
            raise Unpublished([NotSent("no room", id="a")])
        await publish(messages)

    monkeypatch.setattr(broker, "publish", refuse)
    results = await redrive(broker, clock, Wanted())
    assert [(result.id, "no room" in result.error) for result in results] == [
        ("a", True),
        ("b", False),
    ]
    assert [letter.id async for letter, _ in browse(broker, Wanted())] == ["a"]


class Failing:
    """Publishes nothing from the second letter on, for a reason of the broker's or the letters'."""

    def __init__(self, broker: MemoryBroker, *, cause: Exception | None, good: int = 1) -> None:
        self._publish = broker.publish
        self._cause = cause
        self._good = good
        self.asked = 0

    async def __call__(self, messages: Sequence[Message]) -> None:
        self.asked += 1
        if self.asked <= self._good:
            await self._publish(messages)
            return
        error = NotSent("no", id=messages[0].id)
        error.__cause__ = self._cause
        raise Unpublished([error])


async def test_when_the_broker_fails_again_and_again_a_redrive_stops(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await die(broker, *[message(str(number)) for number in range(10)])
    failing = Failing(broker, cause=OSError("the disk is full"))
    monkeypatch.setattr(broker, "publish", failing)
    redriving = Redrive(broker, Wanted(), clock=clock, by="ops")
    results = [result async for result in redriving()]
    assert [bool(result.error) for result in results] == [False, True, True, True]
    assert isinstance(redriving.stopped, CircuitOpen)
    assert "3 letters in a row" in str(redriving.stopped)
    assert await redriving.left() == 9


async def test_letters_that_are_refused_for_themselves_stop_nothing(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await die(broker, *[message(str(number)) for number in range(10)])
    monkeypatch.setattr(broker, "publish", Failing(broker, cause=None))
    redriving = Redrive(broker, Wanted(), clock=clock, by="ops")
    assert len([result async for result in redriving()]) == 10
    assert redriving.stopped is None


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (Unavailable("away"), True),
        (Unanswered("no answer"), True),
        (Misuse("too large"), False),
        (NotSent("refused"), False),
        (Unpublished([None, NotSent("refused")]), False),
        (Unpublished([NotSent("refused"), Unanswered("no answer")]), True),
    ],
)
def test_a_failure_is_the_brokers_or_the_messages(error: CallcastError, is_so: bool) -> None:
    assert is_of_broker(error) is is_so


@pytest.mark.parametrize("at", ["publish", "settle"])
async def test_an_open_circuit_or_a_broker_that_goes_away_stops_a_redrive_at_once(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await die(broker, message("a"), message("b"))
    error = CircuitOpen("open", retry_after=1.0) if at == "publish" else Unavailable("away")

    async def fail(*_: object) -> None:
        raise error

    if at == "publish":
        monkeypatch.setattr(broker, "publish", fail)
    else:
        monkeypatch.setattr(Hand, "done", fail)
    redriving = Redrive(broker, Wanted(), clock=clock, by="ops")
    results = [result async for result in redriving()]
    assert [result.id for result in results] == (["a"] if at == "publish" else [])
    assert redriving.stopped is error


async def test_copies_of_a_letter_go_with_the_one_that_is_sent(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a broker that keeps a letter for each time that a message died."""
    monkeypatch.setattr(queue, "is_same", lambda *_: False)
    for _ in range(3):
        await die(broker, message("a"), message("b"))
    await die(broker, replace(message("a"), body=b"another"))
    results = await redrive(broker, clock, Wanted(ids=["a"]))
    assert [result.id for result in results] == ["a"]
    assert [m.id for m in await ready(broker, BILLING)] == ["a"]
    left = [(letter.id, m.body) async for letter, m in browse(broker, Wanted())]
    assert left == [*[("b", b"{}")] * 3, ("a", b"another")]


async def test_what_dies_again_while_its_copies_are_taken_away_stays_dead(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await die(broker, message("a"), message("b"))
    publish = broker.publish

    async def sent_and_dead_again(messages: Sequence[Message]) -> None:
        await publish(messages)
        worker = await broker.consume(BILLING)
        await worker.settle([(each, Dead("again")) for each in await worker.fetch(1, 0.0)])
        await worker.close()

    monkeypatch.setattr(broker, "publish", sent_and_dead_again)
    results = await redrive(broker, clock, Wanted())
    assert [result.id for result in results] == ["a", "b"]
    left = [
        (letter.id, letter.reason, letter.redriven) async for letter, _ in browse(broker, Wanted())
    ]
    assert left == [("a", "again", 1), ("b", "again", 1)]


async def test_a_redrive_that_is_stopped_midway_leaves_each_letter_somewhere(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    await die(broker, message("a"), message("b"), message("c"))
    work = Redrive(broker, Wanted(), clock=clock, by="ops")()
    assert (await anext(work)).id == "a"
    await work.aclose()
    dead = {letter.id async for letter, _ in browse(broker, Wanted())}
    alive = {m.id for m in await ready(broker, BILLING)}
    assert (dead, alive) == ({"b", "c"}, {"a"})


async def test_many_letters_are_browsed_page_by_page(broker: MemoryBroker) -> None:
    for start in range(0, 250, 50):
        await die(broker, *[message(f"{number:03}") for number in range(start, start + 50)])
    ids = [letter.id async for letter, _ in browse(broker, Wanted())]
    assert ids == [f"{number:03}" for number in range(250)]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("id=a", True),
        ("id!=a", False),
        ("reason~sku", True),
        ("reason~SKU", False),
        ("attempts=20", True),
        ("group!=stock", True),
        ("reason=a=b", False),
    ],
)
def test_filters_compare_fields(text: str, fits: bool) -> None:
    letter = letter_of(BILLING, message("a", headers={**NOTES, "callcast-dead-reason": "bad sku"}))
    assert Filter.parse(text)(letter) is fits
    assert Wanted(filters=[Filter.parse(text)])(letter) is fits


@pytest.mark.parametrize("text", ["", "id", "=a", "colour=red", "superseded=yes"])
def test_a_filter_that_is_none_names_what_there_is(text: str) -> None:
    with pytest.raises(Misuse, match="filter"):
        Filter.parse(text)
