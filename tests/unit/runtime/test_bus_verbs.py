"""The three verbs and their kin, through a whole bus on the memory broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from callcast import (
    Bus,
    Context,
    Event,
    Message,
    Misuse,
    NotSent,
    Operation,
    Recovery,
    Refused,
    Remote,
    Service,
    Settings,
    Struct,
    Transaction,
    Unanswered,
)
from callcast.brokers.memory import MemoryBroker
from callcast.runtime.clock import AsyncioClock


class Order(Struct):
    id: str
    sku: str = "tea"


STOCK = Operation("inventory.stock", str, int, idempotent=True)
SLOW = Operation("inventory.slow", float, None, idempotent=True, deadline=0.05)
FRAGILE = Operation("inventory.fragile", str, int)
RESERVE = Operation("inventory.reserve", Order, int, once=True)
PLACED = Event("orders.placed", Order, key=lambda order: order.id)
UNHEARD = Event("orders.seen", Order, unheard=True)
COUNTED = Event("inventory.counted", int)

FAST = Settings(recovery=Recovery(immediate=0, delays=()))


def inventory() -> tuple[Service, list[object]]:
    service = Service("inventory", schema=["create table if not exists t(id text)"])
    seen: list[object] = []

    @service.serves(STOCK)
    async def stock(sku: str) -> int:
        seen.append(sku)
        if sku == "gold":
            raise Refused("we have no gold", status=404, type="no-gold", data={"sku": sku})
        if sku == "bomb":
            raise RuntimeError("secret inside")
        return len(sku)

    @service.serves(SLOW)
    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @service.serves(FRAGILE)
    async def fragile(sku: str, context: Context) -> int:
        seen.append(context)
        return 1

    @service.serves(RESERVE)
    async def reserve(order: Order, tx: Transaction) -> int:
        seen.append(order.id)
        await tx.execute("insert into t(id) values (?)", order.id)
        return len(seen)

    return service, seen


async def test_a_call_gets_the_typed_answer() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        assert await bus.call(STOCK, "tea") == 3


async def test_a_refusal_reaches_the_caller_with_status_type_and_data() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Remote) as caught:
            await bus.call(STOCK, "gold")
    error = caught.value
    assert (error.status, error.type, error.detail) == (404, "no-gold", "we have no gold")
    assert error.data["sku"] == "gold"


async def test_an_unexpected_error_reaches_the_caller_without_its_text() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Remote) as caught:
            await bus.call(STOCK, "bomb")
    assert caught.value.status == 500
    assert "secret" not in str(caught.value)


async def test_a_call_that_takes_too_long_is_unanswered() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Unanswered) as caught:
            await bus.call(SLOW, 5.0)
    assert caught.value.id


async def test_a_call_to_nobody_says_where_to_name_the_peer() -> None:
    async with Bus("memory://") as bus:
        with pytest.raises(Misuse, match="CALLCAST_PEER_INVENTORY"):
            await bus.call(STOCK, "tea")


async def test_a_cast_is_done_by_the_same_handler_and_waits_for_a_service_that_never_ran() -> None:
    service, seen = inventory()
    async with Bus("memory://", services=[service]) as bus:
        id_ = await bus.cast(STOCK, "tea", id="c-1")
        await bus.idle()
    assert id_ == "c-1"
    assert seen == ["tea"]


async def test_casting_what_must_not_repeat_is_misuse() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Misuse, match="neither idempotent nor once"):
            await bus.cast(FRAGILE, "tea")


async def test_an_event_that_nobody_hears_is_not_sent() -> None:
    async with Bus("memory://") as bus:
        with pytest.raises(NotSent) as caught:
            await bus.publish(PLACED, Order("o-1"), id="m-1")
    assert caught.value.id == "m-1"


async def test_a_publish_that_is_refused_for_good_is_not_tried_again() -> None:
    tried: list[str] = []

    class Counting(MemoryBroker):
        async def publish(self, messages: Sequence[Message]) -> None:
            tried.extend(message.id for message in messages)
            await super().publish(messages)

    broker = Counting(AsyncioClock())
    async with Bus(broker, name="shop") as bus:
        with pytest.raises(NotSent, match="ever subscribed"):
            await bus.publish(PLACED, Order("o-1"), id="m-1")
    await broker.close()
    assert tried == ["m-1"]


async def test_a_publish_that_the_broker_could_not_take_is_tried_again() -> None:
    tried: list[str] = []

    class Full(MemoryBroker):
        async def publish(self, messages: Sequence[Message]) -> None:
            tried.extend(message.id for message in messages)
            if len(tried) == 1:
                raise NotSent("the disk is full")
            await super().publish(messages)

    broker = Full(AsyncioClock())
    async with Bus(broker, name="shop") as bus:
        await bus.publish(UNHEARD, Order("o-1"), id="m-1")
    await broker.close()
    assert tried == ["m-1", "m-1"]


async def test_the_result_of_a_cast_is_published_as_the_event_it_names() -> None:
    service, _ = inventory()
    listener = Service("reports")
    heard: list[tuple[int, str | None]] = []

    @listener.on(COUNTED)
    async def note(count: int, context: Context) -> None:
        heard.append((count, context.causation_id))

    async with Bus("memory://", services=[service, listener]) as bus:
        await bus.cast(STOCK, "tea", reply_to=COUNTED, id="c-1")
        await bus.idle()
    assert heard == [(3, "c-1")]


async def test_the_result_of_a_cast_within_a_transaction_leaves_with_its_commit() -> None:
    service, _ = inventory()
    listener = Service("reports")
    heard: list[int] = []

    @listener.on(COUNTED)
    async def note(count: int) -> None:
        heard.append(count)

    async with Bus("memory://", services=[service, listener]) as bus:
        await bus.cast(RESERVE, Order("o-1"), reply_to=COUNTED)
        await bus.idle()
    assert heard == [1]


async def test_a_reply_event_of_another_type_is_misuse() -> None:
    service, _ = inventory()
    wrong = Event("inventory.wrong", str)
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Misuse, match="must be the operation's response"):
            await bus.cast(STOCK, "tea", reply_to=wrong)  # type: ignore[arg-type]
        with pytest.raises(Misuse, match="has no key"):
            keyed = Event("inventory.keyed", int, key=str)
            await bus.cast(STOCK, "tea", reply_to=keyed)


async def test_a_request_waits_for_the_answer_over_the_broker() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        assert await bus.request(STOCK, "tea") == 3
        assert await asyncio.gather(*(bus.request(STOCK, "x" * n) for n in range(20))) == list(
            range(20)
        )


async def test_a_request_that_is_refused_raises_remote() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Remote) as caught:
            await bus.request(STOCK, "gold")
    assert (caught.value.status, caught.value.type) == (404, "no-gold")


async def test_a_request_that_dies_is_answered_without_the_errors_text() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service], settings=FAST) as bus:
        with pytest.raises(Remote) as caught:
            await bus.request(STOCK, "bomb")
    assert caught.value.status == 500
    assert "secret" not in str(caught.value)


async def test_a_request_without_an_answer_is_unanswered_and_stays_queued() -> None:
    async with Bus("memory://") as bus:
        with pytest.raises(Unanswered) as caught:
            await bus.request(STOCK, "tea", deadline=0.05, id="r-1")
    assert caught.value.id == "r-1"


async def test_nested_work_knows_its_cause_and_shares_the_correlation() -> None:
    service, seen = inventory()
    caller = Service("orders")

    @caller.on(PLACED)
    async def place(order: Order, bus: Bus) -> None:
        await bus.call(FRAGILE, order.sku)

    async with Bus("memory://", services=[service, caller]) as bus:
        id_ = await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
    context = seen[0]
    assert isinstance(context, Context)
    assert (context.correlation_id, context.causation_id) == (id_, id_)
    assert context.deadline is not None


async def test_sending_directly_beside_a_transaction_is_misuse_without_now() -> None:
    service = Service("orders")
    errors: list[Misuse] = []

    @service.on(PLACED)
    async def place(order: Order, tx: Transaction, bus: Bus) -> None:
        for attempt in (bus.publish(COUNTED, 1), bus.cast(STOCK, "tea")):
            with pytest.raises(Misuse, match="now=True") as caught:
                await attempt
            errors.append(caught.value)
        await bus.cast(STOCK, "tea", now=True)
        await tx.fetch("select 1")
        with pytest.raises(Misuse, match="call first, then write"):
            await bus.call(STOCK, "tea")

    hosted, seen = inventory()
    async with Bus("memory://", services=[service, hosted]) as bus:
        await bus.publish(PLACED, Order("o-1"))
        await bus.idle()
    assert len(errors) == 2
    assert seen == ["tea"]


async def test_a_transaction_outside_a_handler_sends_with_its_commit() -> None:
    service = Service("orders", database="sqlite:///:memory:")
    heard: list[str] = []

    @service.on(PLACED)
    async def note(order: Order) -> None:
        heard.append(order.id)

    async with Bus("memory://", services=[service]) as bus:
        async with bus.transaction() as tx:
            await tx.publish(PLACED, Order("o-1"))
            await bus.idle_on(bus._clock, 5)
            assert heard == []
        with pytest.raises(ZeroDivisionError):
            async with bus.transaction(service) as tx:
                await tx.publish(PLACED, Order("o-2"))
                raise ZeroDivisionError
        await bus.idle()
    assert heard == ["o-1"]


async def test_a_transaction_of_a_bus_without_a_database_is_misuse() -> None:
    async with Bus("memory://") as bus:
        with pytest.raises(Misuse, match="which database"):
            bus.transaction()


async def test_a_body_over_the_limit_is_refused_at_once() -> None:
    service, _ = inventory()
    async with Bus("memory://", services=[service]) as bus:
        with pytest.raises(Misuse, match="exceeds the limit"):
            await bus.cast(STOCK, "x" * 1_048_577)


@pytest.mark.parametrize(
    "headers", [{"callcast-x": "1"}, {"x": "a\r\nb"}, {"": "x"}, {"x": "y" * 40_000}, {"ä": "x"}]
)
async def test_headers_that_would_do_harm_are_refused(headers: dict[str, str]) -> None:
    async with Bus("memory://") as bus:
        with pytest.raises(Misuse, match="header"):
            await bus.cast(STOCK, "tea", headers=headers)


async def test_a_keyword_that_nobody_knows_is_refused_as_python_would() -> None:
    async with Bus("memory://", name="orders") as bus:
        with pytest.raises(TypeError, match="unknown keyword 'dealy': a message is sent with"):
            await bus.publish(PLACED, Order("1"), dealy=3.0)  # type: ignore[call-arg]


async def test_headers_expiry_and_delay_travel_with_the_message() -> None:
    service = Service("inventory")
    seen: list[str] = []

    @service.serves(STOCK)
    async def stock(sku: str, context: Context) -> int:
        seen.append(context.headers["x-tenant"])
        return 1

    async with Bus("memory://", services=[service]) as bus:
        await bus.cast(STOCK, "tea", headers={"x-tenant": "acme"}, expires=60.0, delay=0.01)
        while not seen:
            await bus.idle()
    assert seen == ["acme"]


async def test_idle_names_what_remains() -> None:
    service, _ = inventory()
    waits = Operation("inventory.waits", float, None, idempotent=True, deadline=9.0)
    gate = asyncio.Event()

    @service.serves(waits)
    async def wait(seconds: float) -> None:
        await gate.wait()

    async with Bus("memory://", services=[service]) as bus:
        await bus.cast(waits, 1.0)
        with pytest.raises(TimeoutError, match=r"inventory\.waits"):
            await bus.idle(timeout=0.1)
        gate.set()
        await bus.idle()


async def test_a_message_of_an_unknown_type_is_dead_and_not_decoded() -> None:
    service, seen = inventory()
    async with Bus("memory://", services=[service]) as bus:
        broker = bus._engine.running.broker
        await broker.publish([Message("m-1", "x", "who.knows", STOCK.topic, b'"tea"')])
        await bus.idle()
        source = bus._engine.running.hosts[0].sources[0]
        assert (await broker.lag(source)).dead == 1
    assert seen == []
