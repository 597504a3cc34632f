"""What binding the queues and exchanges of others asks for: refused at the start, or safe."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from foreign_parts import ADA, PLAIN, QUORUM, Customer, Estate, changed, listener
from operator_parts import records, run
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import opened, topic, until

from callcast import Bus, Context, Event, Misuse, Service
from callcast.ports.broker import Source
from callcast.runtime.transaction import Transaction

pytestmark = pytest.mark.timeout(60)


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


@pytest.mark.parametrize("reason", ["rejected", "expired"])
def test_a_letter_that_rabbitmq_itself_has_buried_says_where_and_why(
    theirs: BlockingChannel, rabbitmq_url: str, reason: str
) -> None:
    """Somebody has pointed the dead letters of a queue of theirs at those of a group of ours."""
    event = Event(topic(), Customer)
    source = listener(event, []).handlers[0].source
    asyncio.run(ensured(rabbitmq_url, source))
    buried = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{source}/dead"}
    estate = Estate(theirs, **buried, **({"x-message-ttl": 1} if reason == "expired" else {}))
    estate.send(message_id="7", headers={"ce-id": "7", "ce-source": "/them"})
    if reason == "rejected":
        method, _, _ = theirs.basic_get(estate.queue)
        assert method is not None
        theirs.basic_reject(method.delivery_tag, requeue=False)
    listed = ("dlq", "ls", "--filter", f"origin={estate.queue}", "--broker", rabbitmq_url)
    deadline = time.monotonic() + 20.0
    while not (letters := records(*listed)):
        assert time.monotonic() < deadline
    [letter] = letters
    assert (letter["id"], letter["topic"], letter["group"]) == ("7", event.topic, "billing")
    assert (letter["reason"], letter["attempts"]) == (reason, 1)
    assert str(letter["last_failed_at"]).endswith("Z")
    redriven = run("dlq", "redrive", "--filter", f"reason={reason}", *listed[2:])
    assert redriven.exit_code == 0, redriven.stderr
    assert records(*listed) == []


async def ensured(url: str, source: Source) -> None:
    async with opened(url) as broker:
        await broker.ensure([source.topic], [source])
