"""Beside services that know nothing of callcast: their exchanges, queues and dead letters."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import pika
import pytest
from msgspec.structs import replace
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import crash, fetched, opened, stranger, topic, until

from callcast import Amqp, Bus, Context, Event, Misuse, NotSent, Refused, Service, Struct
from callcast.core.outcome import DEAD_REASON, DONE
from callcast.policies.recovery import Recovery
from callcast.ports.broker import Part
from callcast.runtime.transaction import Transaction

pytestmark = pytest.mark.timeout(60)

QUORUM = {"x-queue-type": "quorum"}


class Customer(Struct):
    id: str
    name: str = ""


ADA = Customer("c-1", "Ada")
PLAIN = b'{"id": "c-1", "name": "Ada"}'


@pytest.fixture
def theirs(rabbitmq_url: str) -> Generator[BlockingChannel]:
    with stranger(rabbitmq_url) as channel:
        yield channel


class Estate:
    """What another team has: an exchange, a queue bound to it, an exchange of dead letters."""

    def __init__(self, channel: BlockingChannel, **arguments: object) -> None:
        name = topic()
        self.channel = channel
        self.exchange, self.queue = f"{name}.crm", f"{name}.billing"
        self.dlx, self.dead = f"{name}.dlx", f"{name}.dead"
        channel.exchange_declare(self.exchange, "topic", durable=True)
        channel.exchange_declare(self.dlx, "fanout", durable=True)
        channel.queue_declare(self.dead, durable=True)
        channel.queue_bind(self.dead, self.dlx)
        channel.queue_declare(self.queue, durable=True, arguments=arguments or None)
        channel.queue_bind(self.queue, self.exchange, "customer.*")

    def send(self, body: bytes = PLAIN, **properties: object) -> None:
        sent = pika.BasicProperties(**properties)  # type: ignore[arg-type]
        self.channel.basic_publish(self.exchange, "customer.changed", body, sent)

    def read(self, queue: str) -> tuple[pika.BasicProperties, bytes] | None:
        _, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return None if properties is None or body is None else (properties, body)


def changed(**amqp: object) -> Event[Customer]:
    return Event(topic(), Customer, amqp=Amqp(**amqp))  # type: ignore[arg-type]


def listener(event: Event[Customer], seen: list[tuple[Customer, Context]]) -> Service:
    service = Service("billing")

    @service.on(event)
    async def take(customer: Customer, context: Context) -> None:
        seen.append((customer, context))

    return service


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


async def test_a_queue_that_may_drop_is_refused_at_the_start(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs, **QUORUM)
    with pytest.raises(Misuse, match="shows no dead-letter exchange") as told:
        async with Bus(rabbitmq_url, services=[listener(changed(queue=estate.queue), [])]):
            pass
    assert estate.queue in str(told.value)
    assert "may_drop=True" in str(told.value)
    seen: list[tuple[Customer, Context]] = []
    estate.send()
    allowed = changed(queue=estate.queue, may_drop=True)
    async with Bus(rabbitmq_url, services=[listener(allowed, seen)]):
        await until(lambda: seen)


async def test_a_dead_lettering_that_only_looks_safe_is_refused(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    """RabbitMQ carries out at-least-once with drop-head as at-most-once, and says nothing."""
    arguments = {
        **QUORUM,
        "x-dead-letter-exchange": "somewhere",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "drop-head",
    }
    estate = Estate(theirs, **arguments)
    with pytest.raises(Misuse, match="silently carries out as at-most-once"):
        async with Bus(rabbitmq_url, services=[listener(changed(queue=estate.queue), [])]):
            pass


async def test_the_difference_is_named_before_anything_starts(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    good, bad = Estate(theirs), Estate(theirs, **QUORUM)
    sources = [
        listener(changed(queue=queue), []).handlers[0].source
        for queue in (good.queue, bad.queue, f"{good.queue}.misspelt")
    ]
    topics = [source.topic for source in sources]
    async with opened(rabbitmq_url) as broker:
        found = await broker.differences(topics, sources)
        assert {one.name: one.is_missing for one in found} == {
            str(source): True for source in sources
        }
        await broker.ensure([], sources[:1])
        assert await broker.differences(topics[:1], sources[:1]) == []
        for source, said in zip(sources[1:], ("may drop", "is not there"), strict=True):
            with pytest.raises(Misuse, match=said):
                await broker.ensure([], [source])


@pytest.mark.parametrize("kind", ["missing", "stream"])
async def test_a_queue_that_cannot_be_consumed_is_refused_at_the_start(
    theirs: BlockingChannel, rabbitmq_url: str, kind: str
) -> None:
    name = topic()
    if kind == "stream":
        theirs.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
    said = "is a stream" if kind == "stream" else "is not there: callcast makes no queue of others"
    with pytest.raises(Misuse, match=said):
        async with Bus(rabbitmq_url, services=[listener(changed(queue=name), [])]):
            pass


async def test_two_groups_do_not_take_each_others_messages(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs)
    async with Bus(rabbitmq_url, services=[listener(changed(queue=estate.queue), [])]):
        pass
    with pytest.raises(Misuse, match="is consumed by group"):
        async with Bus(rabbitmq_url, services=[listener(changed(queue=estate.queue), [])]):
            pass


async def test_retiring_the_group_leaves_their_queue(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs)
    service = listener(changed(queue=estate.queue), [])
    async with Bus(rabbitmq_url, services=[service]):
        pass
    estate.send()
    async with opened(rabbitmq_url) as broker:
        await broker.retire(service.handlers[0].source)
    assert theirs.queue_declare(estate.queue, passive=True).method.message_count == 1


@pytest.mark.parametrize(
    "identify", ["message_id", "x-event", lambda message: message.headers["x-event"]]
)
async def test_an_effect_happens_once_where_the_binding_says_what_the_id_is(
    theirs: BlockingChannel, rabbitmq_url: str, identify: object, tmp_path: Path
) -> None:
    estate = Estate(theirs)
    event = changed(queue=estate.queue, identify=identify)
    file = tmp_path / "billing.db"
    schema = ["create table if not exists charged(customer text)"]
    service = Service("billing", database=f"sqlite:///{file}", schema=schema)
    ran: list[str] = []

    @service.on(event)
    async def take(customer: Customer, tx: Transaction) -> None:
        ran.append(customer.id)
        await tx.execute("insert into charged(customer) values (?)", customer.id)

    for id_ in ("1", "1", "2"):
        estate.send(message_id=id_, headers={"x-event": id_})
    async with Bus(rabbitmq_url, services=[service]) as bus:
        await until(lambda: len(ran) >= 2)
        await bus.idle()
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("select count(*) from charged").fetchone() == (2,)


async def test_a_message_in_which_the_id_cannot_be_found_is_a_dead_letter(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs)
    event = changed(
        queue=estate.queue,
        dead_letter_exchange=estate.dlx,
        identify=lambda message: message.headers["x-event"],
    )
    estate.send()
    async with Bus(rabbitmq_url, services=[listener(event, [])]):
        properties, body = await until(lambda: estate.read(estate.dead))
    assert body == PLAIN
    assert "identify= found no id" in str((properties.headers or {})["callcast-error-message"])


async def test_an_outbox_sends_to_their_exchange(
    theirs: BlockingChannel, rabbitmq_url: str, tmp_path: Path
) -> None:
    """The relay knows no contract: the address lies in the row."""
    estate = Estate(theirs)
    event = changed(exchange=estate.exchange, routing_key="customer.changed")
    crm = Service("crm", database=f"sqlite:///{tmp_path}/crm.db")
    async with Bus(rabbitmq_url, services=[crm]) as bus:
        async with bus.transaction() as tx:
            id_ = await tx.publish(event, ADA)
        properties, body = await until(lambda: estate.read(estate.queue))
    assert json.loads(body) == {"id": "c-1", "name": "Ada"}
    assert (properties.message_id, properties.headers) == (id_, None)
    async with opened(rabbitmq_url) as broker:
        assert len(await broker.differences([event.topic], [])) == 1  # no exchange was made


async def test_a_transaction_without_ids_is_refused_at_the_start(
    theirs: BlockingChannel, rabbitmq_url: str, tmp_path: Path
) -> None:
    estate = Estate(theirs)
    service = Service("billing", database=f"sqlite:///{tmp_path}/billing.db")

    @service.on(changed(queue=estate.queue))
    async def take(customer: Customer, tx: Transaction) -> None: ...

    with pytest.raises(Misuse, match="say Amqp\\(identify='message_id'\\)"):
        async with Bus(rabbitmq_url, services=[service]):
            pass


async def test_the_same_services_run_without_a_rabbitmq(tmp_path: Path) -> None:
    """Other brokers know no exchanges and queues of others, and carry the event like any other."""
    event = changed(queue="crm.billing", exchange="crm", routing_key="customer.changed")
    seen: list[tuple[Customer, Context]] = []
    async with Bus("memory://", services=[listener(event, seen)]) as bus:
        await bus.publish(event, ADA)
        await bus.idle()
    assert [customer for customer, _ in seen] == [ADA]
