"""What RabbitMQ does to those who trust it: each trap on a real server, which is broken for it."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import pytest
from pika.exceptions import ChannelClosedByBroker, NackError
from rabbitmq_parts import (
    crash,
    fetched,
    handled,
    listening,
    message,
    opened,
    queues_of,
    stranger,
    topic,
    until,
)
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker
from callcast.core.errors import Misuse, NotSent, Unanswered, Unavailable, Unpublished
from callcast.core.outcome import DONE, Dead, Later
from callcast.ports.broker import Part, Source, Unsettled
from callcast.runtime.clock import AsyncioClock

pytestmark = pytest.mark.timeout(120)


async def test_a_node_that_dies_under_a_consumer_loses_no_confirmed_message(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    source = await listening(broker)
    names = {f"m{number}" for number in range(100)}
    await broker.publish([message(name, source.topic) for name in sorted(names)])
    consumer = await broker.consume(source)
    held = await fetched(consumer, 10)
    await asyncio.to_thread(a_rabbitmq_of_its_own.kill)
    with pytest.raises(Unsettled) as told:
        await consumer.settle([(one, DONE) for one in held])
    assert len(told.value.lost) == 10
    await asyncio.to_thread(a_rabbitmq_of_its_own.restart)
    seen: set[str] = set()
    while seen < names:
        batch = await fetched(consumer, 1)
        seen |= {one.message.id for one in batch}
        await consumer.settle([(one, DONE) for one in batch])
    assert seen == names


async def _answers(broker: RabbitBroker, source: Source) -> bool:
    try:
        return (await broker.lag(source)).ready >= 0
    except Unavailable:
        return False


async def test_an_unroutable_message_is_an_error_and_the_next_one_is_sent(
    broker: RabbitBroker,
) -> None:
    source = await listening(broker)
    unheard = topic()
    await broker.ensure([unheard], [])
    with pytest.raises(Unpublished) as told:
        await broker.publish([message("lost", unheard), message("heard", source.topic)])
    first, second = told.value.errors
    assert isinstance(first, NotSent)
    assert "no group has ever subscribed" in str(first)
    assert second is None
    assert await handled(await broker.consume(source)) == ["heard"]


async def test_after_an_exchange_that_is_not_there_publishing_works_again(
    broker: RabbitBroker,
) -> None:
    """The broker closes the channel for it, and with it all that others publish there."""
    source = await listening(broker)
    with pytest.raises(Unpublished) as told:
        await broker.publish([message("m0", "never.made")])
    assert isinstance(told.value.errors[0], NotSent)
    await broker.publish([message("m1", source.topic)])
    assert await handled(await broker.consume(source)) == ["m1"]


async def test_twenty_one_crashes_with_fifty_messages_each_lose_none(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """The broker's own limit is 20 returns, and then it drops them."""
    source = await listening(broker)
    names = [f"m{number}" for number in range(50)]
    await broker.publish([message(name, source.topic) for name in names])
    for _ in range(21):
        await asyncio.to_thread(crash, a_rabbitmq_of_its_own.url, str(source), prefetch=50)
    assert sorted(await handled(await broker.consume(source))) == sorted(names)


async def test_a_dead_letter_looked_at_twenty_one_times_is_still_there(
    broker: RabbitBroker,
) -> None:
    source = await listening(broker)
    await broker.publish([message("m", source.topic)])
    consumer = await broker.consume(source)
    [one] = await fetched(consumer, 1)
    await consumer.settle([(one, Dead("no"))])
    for _ in range(21):
        assert len(await broker.browse(source, part=Part.DEAD)) == 1


async def test_all_queues_are_quorum_queues_that_drop_nothing(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    await listening(broker, ordered=True, lanes=4)
    await listening(broker)
    queues = queues_of(a_rabbitmq_of_its_own)
    kinds = {name: one["arguments"] for name, one in queues.items()}
    quorum = {name: of for name, of in kinds.items() if of["x-queue-type"] == "quorum"}  # type: ignore[index]
    assert len(quorum) == 4 + 1 + 2 * 15
    assert {of["x-delivery-limit"] for of in quorum.values()} == {1_000_000_000}  # type: ignore[index]
    assert {name for name in kinds if name not in quorum} == {"callcast/catalog"}
    assert all(one["durable"] and not one["auto_delete"] for one in queues.values())
    ladder = [of for name, of in quorum.items() if "/later/" in name]
    assert {of["x-dead-letter-strategy"] for of in ladder} == {"at-least-once"}  # type: ignore[index]
    assert {of["x-overflow"] for of in ladder} == {"reject-publish"}  # type: ignore[index]


async def test_a_queue_that_somebody_deletes_is_made_again_and_consumed(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """The server ends the subscription with a `basic.cancel`, and says nothing more."""
    source = await listening(broker)
    consumer = await broker.consume(source)
    assert await consumer.fetch(1, 0.1) == ()
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        channel.queue_delete(str(source))

    async def published() -> bool:
        try:
            await broker.publish([message("m", source.topic)])
        except Unpublished:
            return False
        return True

    await until(published)
    assert set(await handled(consumer)) == {"m"}


async def test_a_long_delay_does_not_hold_up_a_short_one(broker: RabbitBroker) -> None:
    source = await listening(broker)
    await broker.publish([message("long", source.topic), message("short", source.topic)])
    consumer = await broker.consume(source)
    for one in await fetched(consumer, 2):
        delay = 3_600.0 if one.message.id == "long" else 1.0
        await consumer.settle([(one, Later(delay))])
    start = time.monotonic()
    [back] = await fetched(consumer, 1)
    assert back.message.id == "short"
    assert 0.5 < time.monotonic() - start < 5.0


async def test_what_becomes_due_while_its_queue_is_missing_is_not_lost(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """The plain dead-letter strategy throws away what expires then; this one tries again."""
    again_after = "dead_letter_worker_publisher_confirm_timeout, 1000"  # else three minutes
    a_rabbitmq_of_its_own.rabbitmqctl("eval", f"application:set_env(rabbit, {again_after}).")
    source = await listening(broker)
    names = [f"m{number}" for number in range(10)]
    await broker.publish([message(name, source.topic) for name in names])
    consumer = await broker.consume(source)
    batch = await fetched(consumer, 10)
    await consumer.settle([(one, Later(1.5)) for one in batch])
    await consumer.close()
    await broker.close()
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        channel.queue_delete(str(source))
    await asyncio.sleep(2.5)  # so long it takes until all of them have expired
    async with opened(a_rabbitmq_of_its_own.url) as second:
        await second.ensure([source.topic], [source])
        again = await second.consume(source)
        assert sorted(one.message.id for one in await fetched(again, 10)) == sorted(names)


async def test_acknowledging_some_does_not_acknowledge_those_before_them(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """`multiple` reaches everything below its tag: 1 and 2 still run when 3 to 5 are done."""
    source = await listening(broker)
    await broker.publish([message(f"m{number}", source.topic) for number in range(1, 6)])
    consumer = await broker.consume(source)
    held = await fetched(consumer, 5)
    await consumer.settle([(one, DONE) for one in held[2:]])
    await broker.close()
    async with opened(a_rabbitmq_of_its_own.url) as second:
        assert await handled(await second.consume(source)) == ["m1", "m2"]


async def test_a_queue_with_other_arguments_is_named_with_the_difference(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    source = Source(topic(), "group")
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        channel.queue_declare(str(source), durable=True)
    start = time.monotonic()
    with pytest.raises(Misuse, match="inequivalent arg 'x-queue-type'") as told:
        await broker.ensure([source.topic], [source])
    assert str(source) in str(told.value)
    assert "move its messages away and delete it" in str(told.value)
    assert time.monotonic() - start < 10.0


async def test_an_alarm_holds_up_publishing_and_not_consuming(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    source = await listening(broker)
    await broker.publish([message(f"m{number}", source.topic) for number in range(5)])
    consumer = await broker.consume(source)
    held = await fetched(consumer, 3)
    a_rabbitmq_of_its_own.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        waiting: set[asyncio.Task[None]] = set()

        async def is_held_up() -> bool:
            """The alarm comes with the first publish after it."""
            sent = asyncio.create_task(broker.publish([message("late", source.topic)]))
            done, _ = await asyncio.wait({sent}, timeout=1.0)
            waiting.add(sent)
            return not done

        await until(is_held_up)
        await consumer.settle([(one, DONE) for one in held])
        assert len(await fetched(consumer, 2)) == 2
    finally:
        a_rabbitmq_of_its_own.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
    await asyncio.wait_for(asyncio.gather(*waiting), 20.0)
    assert "late" in await handled(consumer)


async def test_what_the_connection_lost_before_its_confirm_is_unanswered_or_sent(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """Each one ends once, and what was confirmed is there."""
    source = await listening(broker)
    a_rabbitmq_of_its_own.freeze()
    batches = [
        asyncio.create_task(broker.publish([message(f"m{number}", source.topic)]))
        for number in range(200)
    ]
    await asyncio.sleep(0.2)  # they are written, and the server that is to read them stands still
    await asyncio.to_thread(a_rabbitmq_of_its_own.kill)
    ended = await asyncio.gather(*batches, return_exceptions=True)
    for one in ended:
        assert isinstance(one, Unpublished)
        assert isinstance(one.errors[0], Unanswered)
        assert "publish it again under the same id" in str(one.errors[0])
    await asyncio.to_thread(a_rabbitmq_of_its_own.restart)
    await until(lambda: _answers(broker, source))
    await broker.publish([message(f"m{number}", source.topic) for number in range(200)])
    assert set(await handled(await broker.consume(source))) == {f"m{n}" for n in range(200)}


async def test_what_one_of_its_queues_refuses_is_unanswered_and_can_be_published_again(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """A negative confirm: others have it, and who sends it again sends the same."""
    source = await listening(broker)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        theirs = channel.queue_declare("", exclusive=True, arguments=full).method.queue
        channel.queue_bind(theirs, source.topic, "#")
        await broker.publish([message("m0", source.topic)])
        with pytest.raises(Unpublished) as told:
            await broker.publish([message("m1", source.topic)])
        assert isinstance(told.value.errors[0], Unanswered)
        assert told.value.errors[0].id == "m1"
        assert "refused it for one of its queues" in str(told.value.errors[0])
        channel.queue_unbind(theirs, source.topic, "#")
        await broker.publish([message("m1", source.topic)])
    assert set(await handled(await broker.consume(source))) == {"m0", "m1"}


async def test_a_dead_letter_that_its_queue_refuses_stays_with_the_worker(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    source = await listening(broker)
    await broker.publish([message("m", source.topic)])
    consumer = await broker.consume(source)
    [one] = await fetched(consumer, 1)
    policy = f"policies/{quote(a_rabbitmq_of_its_own.vhost, safe='')}/full"
    full = {
        "pattern": ".*/dead$",
        "apply-to": "queues",
        "definition": {"max-length": 1, "overflow": "reject-publish"},
    }
    a_rabbitmq_of_its_own.manage("PUT", policy, full)

    async def is_refused() -> bool:
        with stranger(a_rabbitmq_of_its_own.url) as channel:
            channel.confirm_delivery()
            try:
                channel.basic_publish("", f"{source}/dead", b"probe")
            except NackError:
                return True
        return False

    await until(is_refused)
    with pytest.raises(Unsettled) as told:
        await consumer.settle([(one, Dead("no"))])
    assert told.value.failed == (one,)
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        channel.queue_purge(f"{source}/dead")  # its publishers are told that there is room
    a_rabbitmq_of_its_own.manage("DELETE", policy)

    async def is_taken() -> bool:
        try:
            await consumer.settle([(one, Dead("no"))])
        except Unsettled:
            return False
        return True

    await until(is_taken)
    assert [one.message.id for one in await broker.browse(source, part=Part.DEAD)] == ["m"]


async def test_a_fetch_takes_no_more_than_the_prefetch_from_the_others(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    source = await listening(broker)
    await broker.publish([message(f"m{number}", source.topic) for number in range(100)])
    consumer = await broker.consume(source, prefetch=10)
    await fetched(consumer, 10)
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        assert channel.queue_declare(str(source), passive=True).method.message_count == 90


async def test_what_a_stranger_puts_into_our_own_streams_keeps_nobody_from_starting(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    source = await listening(broker)
    await broker.publish([message("m", source.topic)])
    await broker.browse(source)  # which writes a pardon, and so makes the stream of pardons
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        for name in ("callcast/catalog", "callcast/pardons"):
            for body in (b"", b"\xff", b"[]", b'{"made": 1, "pardon": 1}', b"[" * 100_000):
                channel.basic_publish("", name, body)
    async with opened(a_rabbitmq_of_its_own.url) as second:
        assert [str(one) for one in await second.sources()] == [str(source)]
        assert await handled(await second.consume(source)) == ["m"]


async def test_nothing_is_left_of_a_program_that_may_not_declare(
    broker: RabbitBroker, a_rabbitmq_of_its_own: OwnRabbitMq
) -> None:
    """A queue that only one connection may use is refused with a sentence."""
    source = Source(topic(), "group")
    with stranger(a_rabbitmq_of_its_own.url) as channel:
        channel.queue_declare(str(source), exclusive=True)
        with pytest.raises(Misuse, match="would not declare queues"):
            await broker.ensure([source.topic], [source])
        with pytest.raises(ChannelClosedByBroker):
            channel.queue_declare(f"{source}/group", passive=True)


class Ahead(AsyncioClock):
    """The clock of a machine that is early by so many hours."""

    def __init__(self, hours: float) -> None:
        super().__init__()
        self.wall = lambda: time.time() + hours * 3_600.0  # type: ignore[method-assign]


@pytest.mark.parametrize("hours", [2.0, 0.0, -2.0])
async def test_a_window_holds_what_was_published_in_it_by_the_clocks_of_those_who_published(
    rabbitmq_url: str, hours: float
) -> None:
    """The server enters a stream by its own clock, and finds nothing where that is late."""
    keeping = f"{rabbitmq_url}?retain=86400"
    publisher = RabbitBroker(keeping, clock=Ahead(hours))
    try:
        source = await listening(publisher)
        for name in ("first", "second", "third"):
            await publisher.publish([message(name, source.topic)])
            await asyncio.sleep(0.1)
        async with opened(keeping) as reader:
            at = [one.at or 0.0 for one in await reader.read(source.topic)]
            assert at == sorted(set(at))
            for since, until, names in (
                (at[1], at[2], ["second"]),
                (at[1], None, ["second", "third"]),
                (at[0] - 1.0, at[1], ["first"]),
                (at[2] + 0.05, None, []),
            ):
                found = await reader.read(source.topic, since=since, until=until)
                assert [one.message.id for one in found] == names
    finally:
        await publisher.close()
