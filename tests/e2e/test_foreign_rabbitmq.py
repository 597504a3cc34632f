"""Beside services that know nothing of callcast: their exchanges, queues and dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from foreign_parts import ADA, PLAIN, QUORUM, Customer, Estate, changed, listener
from msgspec.structs import replace
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import crash, fetched, opened, topic, until

from callcast import Amqp, Bus, Context, Event, NotSent, Refused, Service
from callcast.core.outcome import DEAD_REASON, DONE
from callcast.policies.recovery import Recovery
from callcast.ports.broker import Part

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("kind", [{}, {**QUORUM, "x-dead-letter-exchange": "somewhere"}])
async def test_a_message_that_no_callcast_wrote_is_handled(
    theirs: BlockingChannel, rabbitmq_url: str, kind: dict[str, object]
) -> None:
    estate, seen = Estate(theirs, **kind), list[tuple[Customer, Context]]()
    event = changed(queue=estate.queue)
    estate.send()
    estate.send(message_id="42", correlation_id="c", headers={"tenant": "north", "tries": 3})
    async with Bus(rabbitmq_url, services=[listener(event, seen)]):
        await until(lambda: len(seen) == 2)
    assert [customer for customer, _ in seen] == [ADA, ADA]
    first, second = (context for _, context in seen)
    assert (first.message_id, first.source) == ("", f"amqp:{estate.queue}")
    assert (second.message_id, second.correlation_id) == ("42", "c")
    assert estate.read(estate.queue) is None


async def test_what_is_published_is_plain_bytes_with_properties(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs)
    event = changed(exchange=estate.exchange, routing_key="customer.changed")
    async with Bus(rabbitmq_url, name="crm") as bus:
        id_ = await bus.publish(event, ADA, headers={"tenant": "north"})
    read = estate.read(estate.queue)
    assert read is not None
    properties, body = read
    assert json.loads(body) == {"id": "c-1", "name": "Ada"}
    assert properties.headers == {"tenant": "north"}
    assert properties.message_id == id_
    assert properties.content_type == "application/json"
    assert (properties.type, properties.app_id) == (event.name, "crm")
    assert properties.delivery_mode == 2


async def test_the_routing_key_may_hold_the_key_of_the_event(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs)
    amqp = Amqp(exchange=estate.exchange, routing_key="customer.{key}")
    event = Event(topic(), Customer, key=lambda one: one.id, amqp=amqp)
    async with Bus(rabbitmq_url, name="crm") as bus:
        await bus.publish(event, ADA)
    method, _, _ = theirs.basic_get(estate.queue, auto_ack=True)
    assert method is not None
    assert method.routing_key == "customer.c-1"


@pytest.mark.parametrize(
    ("exchange", "key", "said"),
    [
        ("", "customer.changed", "there is no exchange"),
        ("crm", "nobody.wants.this", "no queue is bound to exchange"),
    ],
)
async def test_what_nobody_would_get_is_not_sent(
    theirs: BlockingChannel, rabbitmq_url: str, exchange: str, key: str, said: str
) -> None:
    estate = Estate(theirs)
    wanted = estate.exchange if exchange else f"{estate.exchange}.misspelt"
    async with Bus(rabbitmq_url, name="crm") as bus:
        with pytest.raises(NotSent, match=said):
            await bus.publish(changed(exchange=wanted, routing_key=key), ADA)
    assert estate.read(estate.queue) is None


async def test_dead_letters_go_to_the_exchange_that_they_have(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    """With bytes, properties and headers as they were, and the reason beside them."""
    estate = Estate(theirs)
    event = changed(queue=estate.queue, dead_letter_exchange=estate.dlx)
    estate.send(b"\x00 no JSON", message_id="7", type="customer", headers={"tries": 3})
    async with Bus(rabbitmq_url, services=[listener(event, [])]):
        properties, body = await until(lambda: estate.read(estate.dead))
    assert body == b"\x00 no JSON"
    assert (properties.message_id, properties.type) == ("7", "customer")
    headers = properties.headers or {}
    assert headers["tries"] == 3
    assert "Undecodable" in str(headers["callcast-error-type"]) or DEAD_REASON in headers
    assert not [name for name in headers if name.startswith("ce-")]
    [death] = headers["x-death"]
    assert (death["queue"], death["exchange"]) == (estate.queue, estate.exchange)
    assert (death["reason"], death["routing-keys"]) == ("rejected", ["customer.changed"])
    assert headers["x-first-death-queue"] == estate.queue


async def test_a_dead_letter_survives_a_restart_though_its_message_would_not(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    """RabbitMQ's own dead-lettering leaves it transient; the rest of it stays as it was."""
    estate = Estate(theirs)
    event = changed(queue=estate.queue, dead_letter_exchange=estate.dlx)
    estate.send(b"no JSON", delivery_mode=1, priority=3, content_encoding="utf-8", reply_to="a")
    async with Bus(rabbitmq_url, services=[listener(event, [])]):
        properties, _ = await until(lambda: estate.read(estate.dead))
    assert properties.delivery_mode == 2
    assert (properties.priority, properties.reply_to) == (3, "a")
    assert properties.content_encoding == "utf-8"


async def test_a_dead_letter_that_their_own_retry_queue_expires_comes_through(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    """RabbitMQ itself goes on with the `x-death` that it finds."""
    estate = Estate(theirs)
    parking = f"{estate.dead}.parking"
    theirs.queue_declare(parking, durable=True)
    waiting = {
        "x-message-ttl": 200,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": parking,
    }
    theirs.queue_declare(f"{estate.dead}.ttl", durable=True, arguments=waiting)
    theirs.queue_bind(f"{estate.dead}.ttl", estate.dlx)
    event = changed(queue=estate.queue, dead_letter_exchange=estate.dlx)
    estate.send(b"no JSON")
    async with Bus(rabbitmq_url, services=[listener(event, [])]):
        properties, body = await until(lambda: estate.read(parking))
    assert body == b"no JSON"
    queues = {death["queue"] for death in (properties.headers or {})["x-death"]}
    assert f"{estate.dead}.ttl" in queues


async def test_a_failure_is_tried_again_through_their_queue(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate, tries = Estate(theirs), list[int]()
    event = changed(queue=estate.queue)
    service = Service("billing")

    @service.on(event, recovery=Recovery(immediate=0, delays=(1.0,)))
    async def take(customer: Customer) -> None:
        tries.append(len(tries))
        if len(tries) == 1:
            raise ConnectionError("not yet")

    estate.send(headers={"tenant": "north"})
    async with Bus(rabbitmq_url, services=[service]) as bus:
        await until(lambda: len(tries) == 2)
        await bus.idle()
    assert estate.read(estate.queue) is None


async def test_dead_letters_without_an_exchange_are_ours_and_can_be_redriven(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    """Two without an id are two letters, and a redrive comes by their queue again."""
    estate = Estate(theirs)
    event = changed(queue=estate.queue)
    refuses = Service("billing")

    @refuses.on(event)
    async def refuse(customer: Customer) -> None:
        raise Refused("no")

    estate.send()
    estate.send()
    source = refuses.handlers[0].source
    async with Bus(rabbitmq_url, services=[refuses]), opened(rabbitmq_url) as broker:

        async def both() -> Sequence[object]:
            letters = await broker.browse(source, part=Part.DEAD)
            return letters if len(letters) == 2 else ()

        await until(both)
    async with opened(rabbitmq_url) as broker:
        letters = await broker.browse(source, part=Part.DEAD)
        assert len({one.message.id for one in letters}) == 2
        assert [one.message.body for one in letters] == [PLAIN, PLAIN]
    seen: list[tuple[Customer, Context]] = []
    async with Bus(rabbitmq_url, services=[listener(event, seen)]), opened(rabbitmq_url) as broker:
        dead = await broker.consume(source, part=Part.DEAD)
        for letter in await fetched(dead, 2):
            await broker.publish([replace(letter.message, group=source.group)])
            await dead.settle([(letter, DONE)])
        await until(lambda: len(seen) == 2)


@pytest.mark.parametrize("kind", [{}, {**QUORUM, "x-dead-letter-exchange": "somewhere"}])
async def test_crashes_are_counted_in_their_queue_too(
    theirs: BlockingChannel, rabbitmq_url: str, kind: dict[str, object]
) -> None:
    """A classic queue counts nothing: what has been back to it is counted in one of ours."""
    estate = Estate(theirs, **kind)
    source = listener(changed(queue=estate.queue), []).handlers[0].source
    suspects = f"{source}/suspects"
    async with opened(rabbitmq_url) as broker:
        await broker.ensure([], [source])
        estate.send(headers={"tenant": "north"})
        for _ in range(2):
            await asyncio.to_thread(crash, rabbitmq_url, estate.queue, prefetch=1)
        consumer = await broker.consume(source)
        await until(
            lambda: not theirs.queue_declare(estate.queue, passive=True).method.message_count
        )
        [one] = await fetched(consumer, 1)
        assert one.crashes == (2 if kind else 1)
        assert one.message.headers["tenant"] == "north"
    await asyncio.to_thread(crash, rabbitmq_url, suspects, prefetch=1)
    async with opened(rabbitmq_url) as broker:
        consumer = await broker.consume(source)
        [again] = await fetched(consumer, 1)
        assert again.crashes == (3 if kind else 2)
        await consumer.settle([(again, DONE)])


async def test_what_is_given_back_in_good_order_is_no_crash_though_it_has_no_id(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs, **QUORUM, **{"x-dead-letter-exchange": "somewhere"})
    source = listener(changed(queue=estate.queue), []).handlers[0].source
    estate.send()
    for _ in range(3):
        async with opened(rabbitmq_url) as broker:
            await broker.ensure([], [source])
            [one] = await fetched(await broker.consume(source), 1)
            assert one.crashes == 0
