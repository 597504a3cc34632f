"""An observer on in-memory exporters, and pieces of work to watch with it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callcast.core.context import Context
from callcast.core.contract import Event, Operation
from callcast.core.message import Message
from callcast.core.work import Kind, Work
from callcast.telemetry.otel import OtelObserver

USER = Operation("users.get", str, str, http="GET /users/{user_id}")
STOCK = Operation("inventory.stock", str, int)
PLACED = Event("orders.placed", str)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


class StillClock:
    """Time that only moves when told."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, delay: float) -> None:
        self.time += delay

    def expire_at(self, when: float, *, coarse: bool = True) -> AbstractContextManager[object]:
        return nullcontext()


class Watched:
    """An observer and what it told."""

    def __init__(self, *, join: Literal["parent", "link"] = "parent") -> None:
        self.clock = StillClock()
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.observer = OtelObserver(
            self.clock, system="sqlite", join=join, tracers=self.tracers, meters=self.meters
        )
        assert self.observer.is_tracing

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        (only,) = self.spans
        return only

    def points(self, name: str) -> dict[tuple[tuple[str, object], ...], float]:
        """The values of a metric by their labels; of a histogram its sum."""
        data = self.reader.get_metrics_data()
        found: dict[tuple[tuple[str, object], ...], float] = {}
        if data is None:
            return found
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name != name:
                        continue
                    for point in metric.data.data_points:
                        labels = tuple(sorted((point.attributes or {}).items()))
                        is_histogram = isinstance(point, HistogramDataPoint)
                        found[labels] = point.sum if is_histogram else point.value
        return found


def context(**headers: str) -> Context:
    return Context("m-1", "c-1", "cause-1", headers=headers)


def message(**changes: object) -> Message:
    fields: dict[str, object] = {
        "id": "m-1",
        "source": "orders",
        "type": "orders.placed",
        "topic": "orders.placed",
        "body": b'"secret"',
        "correlation_id": "c-1",
    }
    return Message(**{**fields, **changes})  # type: ignore[arg-type]


def calling(**changes: object) -> Work:
    return Work(Kind.CALL, "users.get", **{"contract": USER, "peer": "users", **changes})  # type: ignore[arg-type]


def serving(**headers: str) -> Work:
    return Work(Kind.SERVE, "users.get", contract=USER, context=context(**headers))


def publishing(**changes: object) -> Work:
    return Work(Kind.PUBLISH, "orders.placed", "m-1", PLACED, **{"deadline": 105.0, **changes})  # type: ignore[arg-type]


def consuming(of: Message | None = None) -> Work:
    of = message(traceparent=TRACEPARENT) if of is None else of
    return Work(Kind.CONSUME, of.type, of.id, PLACED, "mail", of.body, of, round=2, crashes=1)
