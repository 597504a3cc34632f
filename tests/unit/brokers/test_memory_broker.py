"""What the memory broker promises beyond the suite."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from callcast.brokers.memory import MemoryBroker
from callcast.brokers.memory.broker import Bell
from callcast.core.errors import Misuse, Unpublished
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.policies.shelves import KEY_OUT_MAX
from callcast.ports.broker import Delivery, Lag, Part, Source, Start, Unsettled
from callcast.testing.clock import ManualClock

PLAIN = Source("orders.placed", "billing")
ORDERED = Source("orders.placed", "shipping", ordered=True)


def message(name: str, key: str | None = None) -> Message:
    return Message(name, "test", "orders.placed", "orders.placed", b"{}", key)


async def opened(*sources: Source) -> tuple[ManualClock, MemoryBroker]:
    clock = ManualClock(now=0.0)
    broker = MemoryBroker(clock)
    await broker.ensure([], sources)
    return clock, broker


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


async def test_what_is_delayed_cannot_be_consumed() -> None:
    _, broker = await opened(PLAIN)
    with pytest.raises(Misuse, match="browsed, not consumed"):
        await broker.consume(PLAIN, part=Part.DELAYED)


async def test_a_group_that_was_never_made_is_misuse() -> None:
    _, broker = await opened()
    with pytest.raises(Misuse, match=r"orders\.placed/billing: ensure it first"):
        await broker.lag(PLAIN)


async def test_the_remedy_for_an_unheard_event_is_said() -> None:
    _, broker = await opened()
    with pytest.raises(Unpublished, match="unheard=True"):
        await broker.publish([message("a")])


async def test_a_step_of_the_wall_clock_moves_no_delay_and_no_lease() -> None:
    clock, broker = await opened(PLAIN)
    await broker.publish([message("later"), message("held")])
    await broker.publish([replace(message("planned"), deliver_at=clock.wall() + 20.0)])
    consumer = await broker.consume(PLAIN, lease=60.0)
    first, held = await consumer.fetch(2, 0.0)
    await consumer.settle([(first, Later(10.0))])
    clock.step_wall(+86_400.0)
    assert await consumer.fetch(5, 0.0) == []
    clock.step_wall(-2 * 86_400.0)
    await clock.advance(10.0)
    assert ids(await consumer.fetch(5, 0.0)) == ["later"]
    await clock.advance(10.0)
    assert ids(await consumer.fetch(5, 0.0)) == ["planned"]
    await consumer.settle([(held, DONE)])


async def test_without_a_key_nothing_of_an_ordered_group_waits_for_another() -> None:
    clock, broker = await opened(ORDERED)
    consumer, other = await broker.consume(ORDERED), await broker.consume(ORDERED)
    await broker.publish([message("a"), message("b"), message("c")])
    [first] = await consumer.fetch(1, 0.0)
    await consumer.settle([(first, Later(10.0))])
    [second] = await other.fetch(1, 0.0)
    await other.settle([(second, Dead("for the test", park=True))])
    assert ids(await other.fetch(5, 0.0)) == ["c"]
    assert await broker.lag(ORDERED) == Lag(leased=1, delayed=1, dead=1)
    await clock.advance(10.0)
    assert ids(await consumer.fetch(5, 0.0)) == ["a"]


async def test_a_quick_key_may_have_any_number_out_and_a_slow_one_eight() -> None:
    clock, broker = await opened(ORDERED)
    consumer = await broker.consume(ORDERED)
    await broker.publish([message(f"{n}", "k") for n in range(100)])
    taken = list(await consumer.fetch(100, 0.0))
    assert len(taken) == KEY_OUT_MAX  # what it takes is not known yet
    await clock.advance(0.005)
    await consumer.settle([(taken.pop(0), DONE)])
    taken += await consumer.fetch(20, 0.0)
    assert len(taken) == KEY_OUT_MAX - 1 + 20
    await clock.advance(0.1)
    await consumer.settle([(delivery, DONE) for delivery in taken[:2]])  # 50 ms each
    del taken[:2]
    assert await consumer.fetch(20, 0.0) == []
    waiting = asyncio.create_task(consumer.fetch(20, 1_000.0))
    await clock.rest()
    await clock.advance(0.01)
    await consumer.settle([(taken.pop(0), DONE)])  # 10 ms: quick again, and it wakes the fetch
    assert ids(await waiting)[0] == "28"


async def test_the_earliest_is_what_any_other_group_has_not_finished() -> None:
    _, broker = await opened(PLAIN, ORDERED)
    await broker.publish([message("done by both"), message("done by one"), message("by none")])
    await broker.publish([replace(message("for one group"), group="billing")])
    for source, count in ((PLAIN, 2), (ORDERED, 1)):
        consumer = await broker.consume(source)
        taken = await consumer.fetch(count, 0.0)
        await consumer.settle([(delivery, DONE) for delivery in taken])
    late = Source("orders.placed", "late", start=Start.EARLIEST)
    await broker.ensure([], [late])
    heard = await (await broker.consume(late)).fetch(10, 0.0)
    assert ids(heard) == ["done by one", "by none"]


async def test_a_delivery_of_another_consumer_or_broker_is_lost() -> None:
    _, broker = await opened(PLAIN)
    consumer, other = await broker.consume(PLAIN), await broker.consume(PLAIN)
    await broker.publish([message("a")])
    [delivery] = await consumer.fetch(1, 0.0)
    foreign = Delivery(message("b"), handle="of some other broker")
    with pytest.raises(Unsettled) as caught:
        await other.settle([(delivery, DONE), (foreign, DONE)])
    assert caught.value.lost == (delivery, foreign)
    other.renew([foreign])
    await consumer.settle([(delivery, DONE)])


async def test_a_dead_letter_may_be_put_off_or_given_up_again() -> None:
    clock, broker = await opened(PLAIN)
    await broker.publish([message("a"), message("b")])
    consumer = await broker.consume(PLAIN)
    taken = await consumer.fetch(2, 0.0)
    await consumer.settle([(delivery, Dead("first")) for delivery in taken])
    letters = await broker.consume(PLAIN, part=Part.DEAD)
    first, second = await letters.fetch(2, 0.0)
    await letters.settle([(first, Later(10.0)), (second, Dead("second"))])
    assert (await broker.lag(PLAIN)).dead == 2
    [again] = await letters.fetch(2, 0.0)
    assert again.message.headers["callcast-dead-reason"] == "second"
    await clock.advance(10.0)
    assert ids(await letters.fetch(2, 0.0)) == ["a"]


async def test_the_lag_of_an_ordered_group_counts_what_a_parked_letter_holds_as_delayed() -> None:
    _, broker = await opened(ORDERED)
    await broker.publish([message("1", "k"), message("2", "k"), message("3", "other")])
    consumer = await broker.consume(ORDERED)
    taken = await consumer.fetch(10, 0.0)
    await consumer.settle([(taken[0], Dead("first", park=True)), (taken[1], Release())])
    assert await broker.lag(ORDERED) == Lag(leased=1, delayed=1, dead=1)
    assert await broker.unpark(ORDERED, "nobody") == 0


async def test_unparking_where_nothing_is_ordered_lets_nothing_go() -> None:
    _, broker = await opened(PLAIN)
    assert await broker.unpark(PLAIN, "k") == 0


async def test_a_retired_group_hands_out_nothing_more() -> None:
    _, broker = await opened(PLAIN)
    consumer = await broker.consume(PLAIN)
    await broker.publish([message("a")])
    await broker.retire(PLAIN)
    assert await consumer.fetch(1, 0.0) == []
    await consumer.close()


async def test_any_delay_will_do() -> None:
    clock, broker = await opened(PLAIN)
    assert broker.delay_max > 1e12
    await broker.publish([replace(message("a"), deliver_at=clock.wall() + 1e12)])
    assert (await broker.lag(PLAIN)).delayed == 1


async def test_a_bell_rung_twice_wakes_once() -> None:
    bell = Bell()
    clock = ManualClock()
    waiting = asyncio.create_task(bell.wait(clock, clock.now() + 1.0))
    await clock.rest()
    bell.ring()
    bell.ring()
    await waiting


async def test_what_is_kept_is_forgotten_after_its_time() -> None:
    clock = ManualClock(now=0.0)
    broker = MemoryBroker(clock, retain=10.0)
    await broker.ensure([], [PLAIN])
    for name in ("a", "b", "c"):
        await broker.publish([message(name)])
        await clock.advance(6.0)
    assert [one.message.id for one in await broker.read(PLAIN.topic)] == ["b", "c"]
    assert broker.traits.log_kept == 10.0


async def test_without_a_log_nothing_can_be_read() -> None:
    _, broker = await opened(PLAIN)
    await broker.publish([message("a")])
    with pytest.raises(Misuse, match="retain=SECONDS"):
        await broker.read(PLAIN.topic)
