"""What a span says of how its work came: the URL of a served call, the batches of a worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from http_parts import serving
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.routing import Mount
from telemetry_kit import SPAN, TRACE, TRACEPARENT, USER, Watched, message

from callcast import Bus, Event, Operation, Peer, Policy, Refused, Remote, Service, Tls
from callcast.brokers.memory import MemoryBroker
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.policies.silent import Silent
from callcast.ports.broker import Delivery, Source, Unsettled
from callcast.ports.observer import Moved
from callcast.runtime.ports import Ports
from callcast.runtime.system import system_ports
from callcast.runtime.traced_feed import TracedConsumer, TracedFeed, traced
from callcast.telemetry.otel import LINKS_MAX, OtelObserver
from callcast.testing.clock import ManualClock

SOURCE = Source("orders.placed", "mail")
ONCE = Policy(retry=None)


def ports_of(watched: Watched) -> Ports:
    return replace(system_ports("memory://"), observer=watched.observer)


@asynccontextmanager
async def users(watched: Watched) -> AsyncGenerator[Bus]:
    service = Service("users")

    @service.serves(USER)
    async def get(user_id: str) -> str:
        return user_id

    async with Bus("memory://", services=[service], ports=ports_of(watched)) as bus:
        yield bus


def ending(error: Exception | None) -> Callable[[str], Awaitable[None]]:
    """A handler that ends so."""

    async def end(value: str) -> None:
        if error is not None:
            raise error

    return end


def served(watched: Watched) -> Mapping[str, object]:
    (span,) = [one for one in watched.spans if one.kind is SpanKind.SERVER]
    assert span.name == "GET /users/{user_id}"
    assert span.attributes is not None
    return span.attributes


async def ask(url: str, tls: Tls | None = None) -> str:
    peers = {"users": Peer(url, tls=tls, policy=ONCE)}
    async with Bus("memory://", name="caller", peers=peers) as caller:
        return await caller.call(USER, "Zoë/7")


async def test_a_served_call_has_the_path_that_was_asked_for() -> None:
    watched = Watched()
    async with users(watched) as bus, serving(bus.asgi()) as url:
        assert await ask(url) == "Zoë/7"
    assert served(watched)["url.path"] == "/users/Zo%C3%AB%2F7"
    assert served(watched)["http.route"] == "/users/{user_id}"
    assert served(watched)["url.scheme"] == "http"


async def test_a_mounted_application_tells_the_whole_path() -> None:
    watched = Watched()
    async with users(watched) as bus:
        app = Starlette(routes=[Mount("/api", app=bus.asgi())])
        async with serving(app) as url:
            assert await ask(f"{url}/api") == "Zoë/7"
    assert served(watched)["url.path"] == "/api/users/Zo%C3%AB%2F7"


async def test_the_scheme_is_the_one_it_was_reached_by(tmp_path: Path) -> None:
    watched, authority = Watched(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = authority.issue_cert("127.0.0.1")
    cert.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    config = {"ssl_certfile": str(tmp_path / "server.pem")}
    async with users(watched) as bus, serving(bus.asgi(), **config) as url:
        await ask(url.replace("http:", "https:"), Tls(ca=tmp_path / "ca.pem"))
    assert served(watched)["url.scheme"] == "https"
    [labels] = watched.points("http.server.request.duration")
    assert dict(labels)["url.scheme"] == "https"
    assert "url.path" not in dict(labels)


async def test_behind_a_proxy_that_ends_tls_the_scheme_is_the_client_s() -> None:
    watched = Watched()
    headers = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
    async with users(watched) as bus, serving(bus.asgi()) as url, httpx2.AsyncClient() as client:
        answer = await client.get(f"{url}/users/7", headers=headers)
    assert answer.status_code == 200
    assert served(watched)["url.scheme"] == "https"


async def test_the_status_that_was_sent_is_in_the_span_and_in_the_metric() -> None:
    watched, service = Watched(), Service("users")
    ends: dict[str, tuple[Exception | None, int]] = {
        "fine": (None, 204),
        "broken": (ZeroDivisionError(), 500),
        "refused": (Refused("no such user", status=404), 404),
        "nested": (Remote("no such address", status=404), 502),
    }
    for name, (error, _) in ends.items():
        service.serves(Operation(f"users.{name}", str, None))(ending(error))
    sent: dict[str, int] = {}
    async with (
        Bus("memory://", services=[service], ports=ports_of(watched)) as bus,
        serving(bus.asgi()) as url,
        httpx2.AsyncClient() as client,
    ):
        for name in ends:
            path = f"/callcast/users.{name}"
            sent[path] = (await client.post(url + path, json="x")).status_code
    assert list(sent.values()) == [status for _, status in ends.values()]
    spans = [span.attributes or {} for span in watched.spans]
    assert {span["http.route"]: span["http.response.status_code"] for span in spans} == sent
    points = [dict(labels) for labels in watched.points("http.server.request.duration")]
    assert {each["http.route"]: each["http.response.status_code"] for each in points} == sent


async def test_a_call_within_the_process_has_no_path_but_the_template() -> None:
    watched = Watched()
    async with users(watched) as bus:
        await bus.call(USER, "7")
    assert served(watched)["url.path"] == "/users/{user_id}"


# Batches


def moved(*messages: Message, error: Exception | None = None) -> Moved:
    return Moved("receive", SOURCE.topic, SOURCE.group, messages, 0.5, error)


def test_a_batch_of_one_is_in_the_trace_of_its_message() -> None:
    watched = Watched()
    watched.observer.moved(moved(message(traceparent=TRACEPARENT)))
    span = watched.span
    assert (span.name, span.kind) == ("receive orders.placed", SpanKind.CLIENT)
    assert trace.format_trace_id(span.context.trace_id) == TRACE
    assert span.parent is not None
    assert trace.format_span_id(span.parent.span_id) == SPAN
    assert len(span.links) == 1
    assert (span.start_time, span.end_time) == (99_500_000_000, 100_000_000_000)
    assert span.attributes == {
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "messaging.system": "sqlite",
        "messaging.destination.name": "orders.placed",
        "messaging.consumer.group.name": "mail",
        "messaging.message.id": "m-1",
    }


@pytest.mark.parametrize(("count", "links"), [(3, 3), (LINKS_MAX + 50, LINKS_MAX)])
def test_a_batch_of_several_is_a_trace_of_its_own_that_links_to_each(
    count: int, links: int
) -> None:
    watched = Watched()
    with watched.tracers.get_tracer("start-up").start_as_current_span("start"):
        watched.observer.moved(moved(*[message(traceparent=TRACEPARENT)] * count))
    span = watched.spans[0]
    assert span.parent is None
    assert trace.format_trace_id(span.context.trace_id) != TRACE
    assert len(span.links) == links
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == count
    assert "messaging.message.id" not in span.attributes


def test_a_batch_that_was_refused_marks_its_span() -> None:
    watched = Watched()
    watched.observer.moved(moved(message(), error=Unsettled(why="the disk is full")))
    assert watched.span.status.status_code is StatusCode.ERROR
    assert watched.span.attributes is not None
    assert watched.span.attributes["error.type"] == "callcast.ports.broker.Unsettled"


def test_who_observes_nothing_is_told_of_batches_in_vain() -> None:
    Silent().moved(moved(message()))


def test_metrics_alone_make_no_span_of_a_batch() -> None:
    watched = Watched()
    observer = OtelObserver(watched.clock, meters=watched.meters)
    assert observer.is_tracing
    observer.moved(moved(message()))
    assert watched.spans == []


class Deliverer:
    """A consumer of one delivery."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.settled: list[object] = []

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        return [Delivery(message(), 0, 0, None)][:limit]

    async def settle(self, verdicts: Sequence[Any]) -> None:
        if self.errors:
            raise self.errors.pop()
        self.settled += verdicts

    def renew(self, deliveries: Sequence[Delivery]) -> None: ...

    async def close(self) -> None: ...


async def test_a_fetch_that_brings_nothing_and_a_worker_that_nobody_watches_tell_nothing() -> None:
    watched = Watched()
    consumer = TracedConsumer(Deliverer(), SOURCE, ports_of(watched))
    assert not await consumer.fetch(0, 1.0)
    assert watched.spans == []
    unwatched = replace(ports_of(watched), observer=OtelObserver(watched.clock))
    consumer = TracedConsumer(Deliverer(), SOURCE, unwatched)
    batch = await consumer.fetch(1, 1.0)
    await consumer.settle([(batch[0], DONE)])
    silent = replace(unwatched, observer=Silent())
    broker = MemoryBroker(ManualClock())
    assert traced(broker, silent) is broker
    feed = traced(broker, unwatched)
    assert isinstance(feed, TracedFeed)
    await broker.ensure([], [SOURCE])
    assert await feed.lag(SOURCE) == await broker.lag(SOURCE)
    await broker.close()
    assert watched.spans == []


async def test_a_refused_settle_is_told_and_passed_on() -> None:
    watched = Watched()
    consumer = TracedConsumer(Deliverer(Unsettled()), SOURCE, ports_of(watched))
    [delivery] = await consumer.fetch(1, 1.0)
    with pytest.raises(Unsettled):
        await consumer.settle([(delivery, DONE)])
    await consumer.settle([(delivery, DONE)])
    assert [(one.name, one.status.status_code) for one in watched.spans] == [
        ("receive orders.placed", StatusCode.UNSET),
        ("settle orders.placed", StatusCode.ERROR),
        ("settle orders.placed", StatusCode.UNSET),
    ]


async def test_the_worker_of_a_bus_tells_what_it_fetches_and_settles() -> None:
    watched = Watched()
    service, event = Service("mail"), Event("orders.placed", str)

    @service.on(event)
    async def mail(_order: str) -> None: ...

    async with Bus("memory://", services=[service], ports=ports_of(watched)) as bus:
        await bus.publish(event, "o-1")
        await bus.idle()

    def named(name: str) -> ReadableSpan:
        (span,) = [one for one in watched.spans if one.name == name]
        return span

    publish = named("publish orders.placed")
    for name in ("receive orders.placed", "settle orders.placed"):
        parent = named(name).parent
        assert parent is not None
        assert parent.span_id == publish.context.span_id
