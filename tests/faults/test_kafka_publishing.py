"""What becomes of what is published to Kafka when the way there, or the topic, is in trouble."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode

import pytest
from broker_parts import listening, message, topic
from confluent_kafka.cimpl import NewTopic
from kafka_ground import asked, away, opened, read, topics
from servers import OwnServer

from callcast import Bus, Event, NotSent
from callcast.core.errors import Misuse, Unanswered, Unpublished
from callcast.ports.broker import Source

pytestmark = pytest.mark.timeout(60)

ONE = "session=2&partitions=1"
AT_ONCE = 2.0
"""Seconds in which an error comes that no waiting would mend."""
GIVEN_UP = 6.5
"""Seconds in which the driver has given up what it tries for four: it looks once a second."""


async def test_what_is_sent_again_because_its_answer_was_lost_is_stored_once_and_in_order(
    a_kafka_of_its_own: OwnServer,
) -> None:
    url = a_kafka_of_its_own.url
    with a_kafka_of_its_own.proxy() as proxy:
        async with opened(proxy.through(url), ONE) as broker:
            source = await listening(broker)
            names = [f"m{number}" for number in range(60)]
            for start in range(0, 60, 20):
                proxy.drop_reply(f"body of m{start + 7}.".encode())
                batch = names[start : start + 20]
                await asyncio.gather(
                    *(
                        broker.publish(
                            [message(name, source.topic, key="k", body=f"body of {name}.".encode())]
                        )
                        for name in batch
                    )
                )
            assert proxy.dropped == 3
    stored = [one.value() for one in await away(read, url, source.topic)]
    assert stored == [f"body of {name}.".encode() for name in names]


async def test_a_publish_that_nobody_answers_is_unanswered_in_time_and_may_be_repeated(
    a_kafka_of_its_own: OwnServer,
) -> None:
    url = a_kafka_of_its_own.url
    with a_kafka_of_its_own.proxy() as proxy:
        async with opened(proxy.through(url), ONE) as broker:
            source = await listening(broker)
            await broker.publish([message("m0", source.topic, key="k", body=b"m0")])
            proxy.blackhole()
            began = time.monotonic()
            with pytest.raises(Unpublished) as told:
                await broker.publish([message("m1", source.topic, key="k", body=b"m1")])
            assert time.monotonic() - began < GIVEN_UP
            [error] = told.value.errors
            assert isinstance(error, NotSent | Unanswered)
            proxy.heal()
            for name in ("m1", "m2", "m3"):
                body = name.encode()
                await broker.publish([message(name, source.topic, key="k", body=body)])
    stored = [one.value() for one in await away(read, url, source.topic)]
    firsts = list(dict.fromkeys(stored))
    assert firsts == [b"m0", b"m1", b"m2", b"m3"]
    if isinstance(error, NotSent):
        assert stored == firsts


async def test_a_topic_that_is_not_there_is_an_error_at_once_and_is_not_made(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """Not an endless search for who leads it."""
    url = a_kafka_of_its_own.url
    name = topic()
    async with opened(url, ONE) as broker:
        began = time.monotonic()
        with pytest.raises(Unpublished) as told:
            await broker.publish([message("m", name)])
        assert isinstance(told.value.errors[0], NotSent)
        assert "ensure it first" in str(told.value.errors[0])
        with pytest.raises(Misuse, match="ensure it first"):
            await broker.consume(Source(name, "group"))
        assert time.monotonic() - began < AT_ONCE
    assert name not in await topics(url)


async def test_a_topic_that_was_deleted_is_an_error_and_the_next_ensure_makes_it_again(
    a_kafka_of_its_own: OwnServer,
) -> None:
    url = a_kafka_of_its_own.url
    async with opened(url, ONE) as broker:
        source = await listening(broker)
        await broker.publish([message("m0", source.topic)])
        await asked(url, lambda admin: admin.delete_topics([source.topic]))
        while source.topic in await topics(url):
            await asyncio.sleep(0.1)  # the server says so first, and deletes it then
        began = time.monotonic()
        with pytest.raises(Unpublished) as told:
            await broker.publish([message("m1", source.topic)])
        assert time.monotonic() - began < GIVEN_UP
        assert isinstance(told.value.errors[0], NotSent | Unanswered)
        await broker.ensure([source.topic], [source])
        await broker.publish([message("m2", source.topic, body=b"m2")])
    assert [one.value() for one in await away(read, url, source.topic)] == [b"m2"]


async def test_a_message_larger_than_the_topic_takes_is_an_error_at_once_and_hurts_no_other(
    a_kafka_of_its_own: OwnServer,
) -> None:
    """The server refuses all that comes with it; those are sent again."""
    url = a_kafka_of_its_own.url
    name = topic()
    small = {"max.message.bytes": "10000"}
    await asked(url, lambda admin: admin.create_topics([NewTopic(name, 1, 1, config=small)]))
    event = Event(name, bytes)
    async with Bus(f"{url}?{ONE}", name="sender") as bus:
        await bus.publish(event, b"first")
        began = time.monotonic()
        told = await asyncio.gather(
            *(bus.publish(event, body) for body in (b"a", b"x" * 50_000, b"b")),
            return_exceptions=True,
        )
        assert time.monotonic() - began < AT_ONCE
    assert [isinstance(one, NotSent | Misuse) for one in told] == [False, True, False], told
    assert "too large" in str(told[1]).lower()
    stored = sorted(json.loads(one.value() or b"") for one in await away(read, url, name))
    assert stored == sorted(b64encode(body).decode() for body in (b"first", b"a", b"b"))
