"""One request, one trace: what arrives at a receiver of real OTLP is one tree over both worlds."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from operator_parts import run

from callcast import Bus, Context, Event, Operation, Ports, Service, Struct, Transaction
from callcast.runtime import registry
from callcast.runtime.settings import Settings
from callcast.runtime.system import system_of, system_ports
from callcast.telemetry.logs import Correlated, fields_of
from callcast.telemetry.otel import OtelObserver


class Order(Struct):
    id: str


PLACE = Operation("orders.place", Order, str, once=True)
RESERVE = Operation("inventory.reserve", Order, int, idempotent=True)
PLACED = Event("orders.placed", Order, key=lambda order: order.id)
MAILED = Event("mail.sent", Order, unheard=True)
STUMBLES = "o-13"
"""The order whose first reservation fails."""


class Sink:
    """A receiver of OTLP over HTTP: it decodes what an SDK's own exporter sends."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, Span]] = []  # service and span; changed by the server's thread
        sink = self

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.take(self.path, ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Not to stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def take(self, path: str, request: ExportTraceServiceRequest) -> None:
        assert path == "/v1/traces"
        for resource in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                assert scope.scope.name == "callcast"
                self._spans += [(attributes["service.name"], span) for span in scope.spans]

    def tree(self) -> list[str]:
        """Every span with its ancestors, ``root > child``, in the order in which they began."""
        by_id = {span.span_id: span for _, span in self._spans}
        of = {span.span_id: service for service, span in self._spans}

        def path(span: Span) -> str:
            kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
            here = f"{of[span.span_id]}: {kind} {span.name}"
            parent = by_id.get(span.parent_span_id)
            return here if parent is None else f"{path(parent)}\n{here}"

        began = sorted(by_id.values(), key=lambda span: span.start_time_unix_nano)
        return [path(span) for span in began]

    def spans(self) -> list[Span]:
        return [span for _, span in self._spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def sink() -> Generator[Sink]:
    made = Sink()
    yield made
    made.close()


class Telemetry:
    """An SDK for each service, as if each were a process of its own."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._providers: list[TracerProvider] = []

    def ports(self, service: str, broker: str) -> Ports:
        provider = TracerProvider(
            resource=Resource.create({"service.name": service}), shutdown_on_exit=False
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(self._sink.url)))
        self._providers.append(provider)
        ports = system_ports(broker)
        observer = OtelObserver(ports.clock, system=system_of(broker), tracers=provider)
        return replace(ports, observer=observer)

    async def flush(self) -> None:
        """Send everything, then stop the exporters' threads."""
        for provider in self._providers:
            assert await asyncio.to_thread(provider.force_flush)
            await asyncio.to_thread(provider.shutdown)


def services(folder: Path) -> tuple[Service, Service, Service]:
    orders = Service("orders", database=f"sqlite:///{folder / 'orders.db'}")
    inventory = Service("inventory")
    mail = Service("mail")

    @orders.serves(PLACE)
    async def place(order: Order, bus: Bus, tx: Transaction) -> str:
        logging.getLogger("orders").info("placing %s", order.id)
        left = await bus.call(RESERVE, order)
        await tx.publish(PLACED, order)
        logging.getLogger("orders").info("placed %s", order.id)
        return f"{order.id}: {left} left"

    stumbled: set[str] = set()

    @inventory.serves(RESERVE)
    def reserve(order: Order) -> int:  # in a thread of its own
        logging.getLogger("inventory").info("asked for %s", order.id)
        if order.id == STUMBLES and order.id not in stumbled:
            stumbled.add(order.id)
            raise ZeroDivisionError
        return 6

    @mail.on(PLACED)
    async def send(order: Order, bus: Bus) -> None:
        logging.getLogger("mail").info("mailed %s", order.id)
        await bus.publish(MAILED, order)

    return orders, inventory, mail


@asynccontextmanager
async def system(
    telemetry: Telemetry, folder: Path, broker: str = ""
) -> AsyncGenerator[tuple[Bus, list[Bus]]]:
    """Three services, each on a bus of its own, over HTTP and one broker; and a buyer."""
    broker = broker or f"sqlite:///{folder / 'broker.db'}"
    parts = services(folder)
    listeners = {part.name: socket.create_server(("127.0.0.1", 0)) for part in parts}
    peers = {n: f"http://127.0.0.1:{s.getsockname()[1]}" for n, s in listeners.items()}
    buses = [
        Bus(broker, services=[part], peers=peers, ports=telemetry.ports(part.name, broker))
        for part in parts
    ]
    servers = [registry.http_server(bus.asgi(), listeners[bus.name]) for bus in buses]
    running = [asyncio.create_task(server.serve()) for server in servers]
    buyer = Bus(
        "memory://",
        name="buyer",
        peers=peers,
        ports=telemetry.ports("buyer", "memory://"),
        settings=Settings(),
    )
    try:
        async with buses[0], buses[1], buses[2], buyer:
            yield buyer, buses
    finally:
        for server in servers:
            server.stop()
        await asyncio.gather(*running)


TREE = [
    "buyer: INTERNAL call orders.place",
    "buyer: CLIENT POST /callcast/orders.place",
    "orders: SERVER POST /callcast/orders.place",
    "orders: INTERNAL call inventory.reserve",
    "orders: CLIENT POST /callcast/inventory.reserve",
    "inventory: SERVER POST /callcast/inventory.reserve",
]
OUTBOX = [
    "orders: PRODUCER create orders.placed",
    "orders: PRODUCER publish orders.placed",
    "mail: CONSUMER process orders.placed",
    "mail: PRODUCER publish mail.sent",
]


def branch(names: list[str]) -> list[str]:
    """The paths of spans of which each is a child of the one before."""
    return ["\n".join(names[: n + 1]) for n in range(len(names))]


@pytest.fixture(params=["sqlite", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """A broker whose groups end with the test."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'broker.db'}"
        return
    url: str = request.getfixturevalue(f"{request.param}_url")
    yield url
    ended = run("topology", "retire", "mail", "--topic", PLACED.topic, "--yes", "--broker", url)
    assert ended.exit_code == 0, ended.stderr


async def test_one_request_is_one_tree_over_http_outbox_broker_and_handler(
    sink: Sink, tmp_path: Path, broker: str
) -> None:
    telemetry = Telemetry(sink)
    async with system(telemetry, tmp_path, broker) as (buyer, buses):
        assert await buyer.call(PLACE, Order("o-1")) == "o-1: 6 left"
        for bus in buses:
            await bus.idle()
    await telemetry.flush()
    outbox = branch(TREE[:3] + OUTBOX)[3:]
    moved = [f"{outbox[1]}\nmail: CLIENT {what} orders.placed" for what in ("receive", "settle")]
    assert sorted(sink.tree()) == sorted([*branch(TREE), *outbox, *moved])
    assert len({span.trace_id for span in sink.spans()}) == 1
    handled = next(span for span in sink.spans() if span.name == "process orders.placed")
    published = next(span for span in sink.spans() if span.name == "publish orders.placed")
    assert handled.parent_span_id == published.span_id
    assert [link.span_id for link in handled.links] == [published.span_id]
    said = {each.key: each.value.string_value for each in published.attributes}
    assert said["messaging.system"] == ("sqlite" if "sqlite" in broker else "rabbitmq")


LINES = [
    ("callcast", "message settled"),  # by the relay of the outbox
    ("callcast", "message settled"),
    ("callcast", "retry decided"),
    ("callcast.http", "unexpected error while serving a call"),
    ("inventory", "asked for o-13"),
    ("inventory", "asked for o-13"),
    ("mail", "mailed o-13"),
    ("orders", "placed o-13"),
    ("orders", "placing o-13"),
]


async def test_every_log_line_of_one_request_has_its_ids(
    sink: Sink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry(sink)
    caplog.handler.addFilter(Correlated())
    caplog.set_level(logging.WARNING, "uvicorn")  # it says when it starts and stops
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "callcast")  # the last one is the level of what is caught
    async with system(telemetry, tmp_path) as (buyer, buses):
        caplog.clear()
        await buyer.call(PLACE, Order(STUMBLES), id="request-1")
        for bus in buses:
            await bus.idle()
        records = list(caplog.records)
    await telemetry.flush()
    # How far a group is behind is told now and then, and a busy machine blocks the loop.
    others = {"lag measured", "event loop blocked"}
    lines = [(event_of(record), vars(record)) for record in records]
    lines = [(event, line) for event, line in lines if event not in others]
    assert sorted((str(line["name"]), event) for event, line in lines) == LINES
    for event, line in lines:
        is_first = line["name"] == "orders"
        assert line["correlation_id"] == "request-1", event
        assert line["causation_id"] == ("" if is_first else "request-1"), event
        assert (line["message_id"] == "request-1") is is_first, event
    (trace_id,) = {span.trace_id.hex() for span in sink.spans()}
    handlers = [line for _, line in lines if line["name"] in {"orders", "inventory", "mail"}]
    assert {line["trace_id"] for line in handlers} == {trace_id}
    spans = {span.span_id.hex() for span in sink.spans()}
    assert all(line["span_id"] in spans for line in handlers)


def event_of(record: logging.LogRecord) -> str:
    """What a line says: the event of one of callcast's own, else its text."""
    return str(fields_of(record).get("event", record.getMessage()))


async def test_a_trace_goes_through_services_that_record_nothing(tmp_path: Path) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen: list[str] = []
    orders = Service("orders", database=f"sqlite:///{tmp_path / 'orders.db'}")
    mail = Service("mail")

    @orders.serves(PLACE)
    async def place(order: Order, tx: Transaction) -> str:
        await tx.publish(PLACED, order)
        return order.id

    @mail.on(PLACED)
    async def relay(order: Order, bus: Bus) -> None:
        await bus.publish(MAILED, order)

    @mail.on(MAILED)
    async def last(order: Order, context: Context) -> None:
        seen.append(context.headers["traceparent"])

    listener = socket.create_server(("127.0.0.1", 0))
    async with Bus("memory://", name="shop", services=[orders, mail]) as bus:
        server = registry.http_server(bus.asgi(), listener)
        running = asyncio.create_task(server.serve())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/callcast/orders.place"
        headers = {"traceparent": traceparent, "Idempotency-Key": '"k-1"'}
        async with aiohttp.ClientSession() as client:
            answer = await client.post(url, json={"id": "o-1"}, headers=headers)
            assert answer.status == 200
        await bus.idle()
        server.stop()
        await running
    assert seen == [traceparent]
