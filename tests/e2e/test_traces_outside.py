"""The shop's checkout is one tree in a real Zipkin and a real Jaeger, on every broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import OwnServer, Started
from shop_parts import buy, fetched, shop, until

pytestmark = pytest.mark.timeout(400)

TRACES = {
    "sqlite": "0af7651916cd43dd8448eb211c80319c",
    "amqp": "1af7651916cd43dd8448eb211c80319c",
    "kafka": "2af7651916cd43dd8448eb211c80319c",
}
"""A trace for each broker, begun by a client that is none of ours."""
CALLER = "b7ad6b7169203331"


class Seen(NamedTuple):
    """A span as a backend tells it."""

    service: str
    kind: str
    name: str
    id: str
    parent: str


TREE = {
    ("orders", "SERVER", "post /orders"): "from the browser",
    ("orders", "", "call inventory.reserve"): "post /orders",
    ("orders", "CLIENT", "post /callcast/inventory.reserve"): "call inventory.reserve",
    ("inventory", "SERVER", "post /callcast/inventory.reserve"): "post /callcast/inventory.reserve",
    ("orders", "", "call payments.authorise"): "post /orders",
    ("orders", "CLIENT", "post /callcast/payments.authorise"): "call payments.authorise",
    ("payments", "SERVER", "post /callcast/payments.authorise"): (
        "post /callcast/payments.authorise"
    ),
    ("orders", "PRODUCER", "create orders.placed"): "post /orders",
    ("orders", "PRODUCER", "publish orders.placed"): "create orders.placed",
    ("fulfilment", "CONSUMER", "process orders.placed"): "publish orders.placed",
    ("fulfilment", "PRODUCER", "create fulfilment.shipped"): "process orders.placed",
    ("fulfilment", "PRODUCER", "publish fulfilment.shipped"): "create fulfilment.shipped",
    ("notifications", "CONSUMER", "process fulfilment.shipped"): "publish fulfilment.shipped",
}
"""Each span to the name of its parent. Batches that were fetched and settled are beside it."""
LAST = "process fulfilment.shipped"


OF_ITS_OWN = pytest.param("a_kafka_of_its_own", marks=pytest.mark.battery)  # it takes its time


@pytest.fixture(params=["sqlite", "rabbitmq_url", OF_ITS_OWN])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    server: str | OwnServer = request.getfixturevalue(request.param)
    return server.url if isinstance(server, OwnServer) else server


def trace_of(broker: str) -> str:
    return TRACES[broker.partition(":")[0]]


def checked(
    broker: str, folder: Path, traces: str, ask: Callable[[], list[Seen]], **more: str
) -> list[Seen]:
    """Buy once in a trace that a foreign client began, and find all of it there."""
    fast = {"CALLCAST_TRACES": traces, "OTEL_BSP_SCHEDULE_DELAY": "200", **more}
    with shop(folder, broker, **fast) as urls:
        buy(urls["orders"], "o-1", traceparent=f"00-{trace_of(broker)}-{CALLER}-01")
        until(lambda: {each[2] for each in TREE} <= {span.name for span in ask()}, "no whole trace")
    spans = ask()
    names: Mapping[str, str] = {span.id: span.name for span in spans}
    assert len(names) == len(spans), "a span appears twice"
    tree = {
        (span.service, span.kind, span.name): names.get(
            span.parent, "from the browser" if span.parent == CALLER else span.parent
        )
        for span in spans
        if not span.name.startswith(("receive ", "settle "))
    }
    assert tree == TREE
    return spans


def test_in_zipkin(broker: str, tmp_path: Path, zipkin_url: str) -> None:
    def ask() -> list[Seen]:
        found: Any = fetched(f"{zipkin_url}/api/v2/trace/{trace_of(broker)}") or []
        return [
            Seen(
                span["localEndpoint"]["serviceName"],
                span.get("kind", ""),
                span["name"].lower(),
                span["id"],
                span.get("parentId", ""),
            )
            for span in found
        ]

    checked(broker, tmp_path, zipkin_url.replace("http:", "zipkin:"), ask)


@pytest.mark.battery
def test_in_jaeger(broker: str, tmp_path: Path, jaeger: Started) -> None:
    def ask() -> list[Seen]:
        found: Any = fetched(f"{jaeger.url}/api/traces/{trace_of(broker)}") or {"data": []}
        return [seen_by_jaeger(span, trace) for trace in found["data"] for span in trace["spans"]]

    checked(broker, tmp_path, jaeger.more["otlp_http_url"].replace("http:", "otlp:"), ask)


def seen_by_jaeger(span: Any, trace: Any) -> Seen:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    kind = str(tags.get("span.kind", "")).upper()
    # Jaeger tells a parent that is linked too, as that of a handled message is, as a link alone.
    parents = {each["spanID"] for each in span["references"] if each["traceID"] == span["traceID"]}
    return Seen(
        trace["processes"][span["processID"]]["serviceName"],
        "" if kind == "INTERNAL" else kind,
        span["operationName"].lower(),
        span["spanID"],
        " and ".join(sorted(parents)),
    )
