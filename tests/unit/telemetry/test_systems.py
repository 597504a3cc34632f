"""What OpenTelemetry calls the broker behind a URL, and where its messages go."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from opentelemetry import metrics, trace
from telemetry_kit import Watched, consuming, message, publishing

from callcast import Amqp, Event
from callcast.brokers.rabbitmq.names import Names
from callcast.core.amqp import TO
from callcast.core.work import Work
from callcast.ports.broker import Source
from callcast.ports.observer import Moved
from callcast.runtime.system import system_ports
from callcast.telemetry.spans import described


@pytest.mark.parametrize(
    ("url", "system"),
    [
        ("sqlite:///shop.db", "sqlite"),
        ("amqp://guest:guest@localhost/", "rabbitmq"),
        ("amqps://one/shop,amqps://two/shop", "rabbitmq"),
        ("kafka://localhost:9092", "kafka"),
        ("kafkas://localhost:9092", "kafka"),
        ("postgres://localhost/shop", "postgresql"),
        ("rediss://localhost/", "redis"),
    ],
)
def test_a_system_is_called_as_the_conventions_call_it(
    url: str, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: watched.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: watched.meters)
    observer = system_ports(url).observer
    assert observer.is_tracing
    observer.begin(publishing()).end()
    observer.measure(publishing(), 0.1, None)
    attributes = watched.span.attributes
    assert attributes is not None
    assert attributes["messaging.system"] == system
    [labels] = watched.points("messaging.client.sent.messages")
    assert ("messaging.system", system) in labels


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("amqp://guest:guest@rabbit.example/shop", ("rabbit.example", 5672)),
        ("amqps://rabbit.example/shop", ("rabbit.example", 5671)),
        ("amqp://u:p%2Cw@[::1]:5673/", ("::1", 5673)),
        ("kafka://one:9093?partitions=4", ("one", 9093)),
        ("kafkas://one", ("one", 9092)),
        ("kafka://one:9092,two:9092", None),
        ("kafka://one,two", None),
        ("amqps://one/shop,amqps://two/shop", None),
        ("sqlite:///shop.db", None),
        ("memory://", None),
    ],
)
def test_spans_and_metrics_say_which_server_a_message_goes_to(
    url: str, server: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is just one; which of several nodes it was, nobody can say here."""
    watched = Watched()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: watched.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: watched.meters)
    observer = system_ports(url).observer
    assert observer.is_tracing
    for work in (publishing(), consuming()):
        observer.begin(work).end()
        observer.measure(work, 0.1, None)
    observer.moved(Moved("receive", "orders.placed", "mail", [message()], 0.0))
    wanted = {} if server is None else dict(zip(PLACE, server, strict=True))
    for span in watched.spans:
        said = span.attributes or {}
        assert {name: said[name] for name in PLACE if name in said} == wanted
    assert len(watched.spans) == 3
    for metric in ("messaging.client.sent.messages", "messaging.client.consumed.messages"):
        [labels] = watched.points(metric)
        assert {name: value for name, value in labels if name in PLACE} == wanted


def test_what_goes_into_an_outbox_meets_no_server_yet() -> None:
    waiting = replace(publishing(message=message()), deadline=None)
    assert "server.address" not in described(waiting, "kafka", {"server.address": "one"}).attributes


PLACE = ("server.address", "server.port")
ORDERED = Event("orders.placed", str, key=str)
THEIRS = Event("crm", str, amqp=Amqp(queue="billing-in"))
AT_THEIRS = {TO: Amqp(exchange="crm", routing_key="changed.{key}").header("7")}


@pytest.mark.parametrize(
    ("work", "name", "key"),
    [
        (publishing(message=message()), "orders.placed:all", "all"),
        (publishing(message=message(key="o-1")), "orders.placed:a", "a"),
        (publishing(message=message(headers=AT_THEIRS)), "crm:changed.7", "changed.7"),
        (publishing(message=message(group="mail")), "orders.placed/mail", "orders.placed/mail"),
        (consuming(), "orders.placed:all:orders.placed/mail", "all"),
        (
            replace(consuming(message(key="o-1")), contract=ORDERED),
            "orders.placed:a:orders.placed/mail/10",
            "a",
        ),
        (replace(consuming(), contract=THEIRS), "billing-in", None),
    ],
)
def test_on_rabbitmq_a_destination_is_exchange_routing_key_and_queue(
    work: Work, name: str, key: str | None
) -> None:
    said = described(work, "rabbitmq")
    assert said.name.split() == [said.attributes["messaging.operation.name"], "orders.placed"]
    assert said.attributes["messaging.destination.name"] == name
    assert said.attributes["messaging.destination.template"] == "orders.placed"
    assert said.attributes.get("messaging.rabbitmq.destination.routing_key") == key
    others = described(work, "sqlite").attributes
    assert others["messaging.destination.name"] == "orders.placed"
    assert "messaging.destination.template" not in others


def test_the_queue_that_is_named_is_the_queue_that_there_is() -> None:
    for number in range(50):
        came = message(key=f"o-{number}")
        there = Names(Source("orders.placed", "mail", ordered=True)).queue_of(came)
        said = described(replace(consuming(came), contract=ORDERED), "rabbitmq").attributes
        assert str(said["messaging.destination.name"]).endswith(f":{there}")
