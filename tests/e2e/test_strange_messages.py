"""Messages that no library of good manners writes: each ends somewhere, and holds up no other."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import pika
import pytest
from foreign_parts import Customer, Estate, changed
from pika import data
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import opened, topic, until

from callcast import Bus, Event, Refused, Service
from callcast.core.errors import Unavailable
from callcast.policies.recovery import Recovery
from callcast.ports.broker import Glimpse, Part, Source

pytestmark = pytest.mark.timeout(90)

MILLISECONDS = 1_795_424_400_000
"""A time that somebody gave in milliseconds where seconds are meant: the year 58,864."""


class Raw(bytes):
    """A header's value as it stands on the wire, its type in front."""


@pytest.fixture(autouse=True)
def anything_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plain pika write what it would not: other clients do."""
    encode = data.encode_value

    def encode_value(pieces: list[bytes], value: object) -> int:
        if isinstance(value, Raw):
            pieces.append(bytes(value))
            return len(value)
        return encode(pieces, value)

    monkeypatch.setattr(data, "encode_value", encode_value)


STRANGE: dict[str, dict[str, Any]] = {
    "a round that is no number": {"headers": {"callcast-round": "nan"}},
    "a round beyond all": {"headers": {"callcast-round": "inf"}},
    "a round below none": {"headers": {"callcast-round": "-3"}},
    "crashes beyond all": {"headers": {"callcast-crashes": "1e999"}},
    "due at no time": {"headers": {"callcast-due": "nan"}},
    "a header's name that is no text": {"headers": {b"\xff\xfe": "x"}},
    "a header's value that is no text": {"headers": {"x": Raw(b"S\0\0\0\2\xff\xfe")}},
    "a time in milliseconds": {"headers": {"at": Raw(struct.pack(">cQ", b"T", MILLISECONDS))}},
    "a time in a list in a table": {
        "headers": {"at": {"all": [Raw(struct.pack(">cQ", b"T", MILLISECONDS))]}}
    },
    "a timestamp in milliseconds": {"timestamp": MILLISECONDS},
    "a timestamp beyond all": {"timestamp": 2**64 - 1},
    "a content type that is no text": {"content_type": b"\xff\xfe"},
    "a correlation id that is no text": {"correlation_id": b"\xff\xfe"},
    "an id that is no text": {"message_id": b"\xff\xfe"},
    "times that are none": {"headers": {"ce-time": "tomorrow", "ce-expirytime": "never"}},
    "the first moment": {"headers": {"ce-time": "0001-01-01T00:00:00+14:00"}},
    "the last moment": {"headers": {"ce-time": "9999-12-31T23:59:59-14:00"}},
    "nothing as a header": {"headers": {"x": None, "ce-subject": None}},
    "a structured event that is none": {"content_type": "application/cloudevents+json"},
    "a header that fills a frame": {"headers": {"x": "y" * 130_500}},
    "headers that fill a frame": {"headers": {f"x{n}": "y" * 90 for n in range(1_300)}},
    "a subject that fills a frame": {"headers": {"ce-subject": "y" * 130_500}},
    "an expiry beyond all": {"headers": {"ce-expirytime": "9999-12-31T23:59:59.999999Z"}},
}


def answering(name: str, event: Event[Customer]) -> tuple[Service, list[str]]:
    """A service that refuses all but Eve's, at the second try, and the names that it saw."""
    service, seen = Service(name), list[str]()

    @service.on(event, recovery=Recovery(immediate=0, delays=(0.5,)))
    async def take(customer: Customer) -> None:
        seen.append(customer.name)
        if customer.name == "Eve":
            return
        if seen.count(customer.name) < 2:
            raise ConnectionError("not yet")
        raise Refused("no")

    return service, seen


async def dead(url: str, source: Source) -> Sequence[Glimpse]:
    try:
        async with opened(url) as broker:
            return await broker.browse(source, part=Part.DEAD)
    except Unavailable:
        return ()  # a busy server


EVE = b'{"id": "c-2", "name": "Eve"}'


def body_of(case: str) -> bytes:
    return json.dumps({"id": "c-1", "name": case}).encode()


async def are_dead(url: str, service: Service, cases: Sequence[str]) -> bool:
    """Whether these are dead letters soon, with their bytes, and no others are."""

    async def enough() -> Sequence[Glimpse]:
        letters = await dead(url, service.handlers[0].source)
        return letters if len(letters) >= len(cases) else ()

    bodies = [one.message.body for one in await until(enough)]
    return sorted(bodies) == sorted(map(body_of, cases))


# So few that their failures do not open the kill switch.
some = pytest.mark.parametrize("cases", [list(STRANGE)[start::4] for start in range(4)])


@some
async def test_a_queue_of_others_goes_on_behind_strange_messages(
    theirs: BlockingChannel, rabbitmq_url: str, cases: Sequence[str]
) -> None:
    estate = Estate(theirs)
    service, seen = answering("billing", changed(queue=estate.queue))
    for case in cases:
        estate.send(body_of(case), **STRANGE[case])
    estate.send(EVE)
    async with Bus(rabbitmq_url, services=[service]) as bus:
        await until(lambda: "Eve" in seen)
        assert await are_dead(rabbitmq_url, service, cases)
        await bus.idle()
    assert {name: seen.count(name) for name in cases} == dict.fromkeys(cases, 2)


async def test_a_structured_event_in_a_queue_of_others_stays_one_when_it_is_put_off_and_dead(
    theirs: BlockingChannel, rabbitmq_url: str
) -> None:
    estate = Estate(theirs)
    event = changed(queue=estate.queue, dead_letter_exchange=estate.dlx)
    service, seen = answering("billing", event)
    members = {"id": "1", "source": "/them", "type": "t", "specversion": "1.0"}
    body = json.dumps({**members, "data": {"id": "c-1", "name": "Ada"}}).encode()
    estate.send(body, content_type="application/cloudevents+json")
    async with Bus(rabbitmq_url, services=[service]):
        properties, kept = await until(lambda: estate.read(estate.dead))
    assert seen == ["Ada", "Ada"]
    assert (properties.content_type, kept) == ("application/cloudevents+json", body)


@some
async def test_an_event_goes_on_behind_strange_messages(
    theirs: BlockingChannel, rabbitmq_url: str, cases: Sequence[str]
) -> None:
    event = Event(topic(), Customer)
    service, seen = answering("billing", event)
    async with opened(rabbitmq_url) as broker:
        await broker.ensure([event.topic], [service.handlers[0].source])

    def send(id_: str, body: bytes, **properties: object) -> None:
        named = {"ce-id": id_, "ce-source": "/them", "ce-type": event.name}
        more = properties.pop("headers", {})
        assert isinstance(more, dict)
        said: dict[str, Any] = {"content_type": "application/json", **properties}
        sent = pika.BasicProperties(headers={**named, **more}, **said)
        theirs.basic_publish(event.topic, "all", body, sent)

    for case in cases:
        send(case, body_of(case), **STRANGE[case])
    send("eve", EVE)
    async with Bus(rabbitmq_url, services=[service]) as bus:
        await until(lambda: "Eve" in seen)
        assert await are_dead(rabbitmq_url, service, cases)
        await bus.idle()
    assert {name: seen.count(name) for name in cases} == dict.fromkeys(cases, 2)
