"""The observer on OpenTelemetry's API: spans, metrics, propagation and log lines.

Only the API is used: whoever runs the program chooses the SDK and its exporters. While there is
none, nothing is started, measured or parsed, and trace context that came in is passed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context as OtelContext
from opentelemetry.trace import Link, Span, StatusCode, Tracer

from callcast.core.context import AMBIENT
from callcast.core.message import NO_HEADERS, Message
from callcast.core.outcome import Dead, Later
from callcast.core.recorded import CALL_ID
from callcast.core.work import Kind, Work
from callcast.ports.clock import Clock
from callcast.ports.observer import Fact, Moved, WorkSpan
from callcast.telemetry import names
from callcast.telemetry.instruments import Instruments
from callcast.telemetry.logs import FactLog
from callcast.telemetry.propagation import (
    creation,
    extracted,
    incoming,
    injected,
    message_carrier,
    passed_on,
)
from callcast.telemetry.spans import (
    NOWHERE,
    Described,
    Place,
    answered_status,
    attempt_labels,
    described,
    described_attempt,
    described_batch,
    error_text,
    error_type,
    outcome_type,
    status_of,
)

LOOK_EVERY = 1.0
"""Seconds between two looks for an SDK while there is none: asking each time would cost 0.8 us."""

LINKS_MAX = 128
"""Of one batch's span; SDKs keep so many by default."""
_NANO = 1e9
_NOWHERE = OtelContext()

_API = ("opentelemetry.trace", "opentelemetry.metrics")
_SERVER_ERROR = 500
_NOT_COUNTED = nullcontext()

_Ended = Callable[[BaseException | None, int | None], None]


class OtelObserver:
    """Tells OpenTelemetry and the log what happens on one bus.

    `system` is the broker's ``messaging.system``, `server` its host and port. `join` says how the
    handling of a message joins the trace of its publishing: as a child of it and with a link
    (``parent``), or in a trace of its own with a link only (``link``). The providers default to
    OpenTelemetry's global ones, which are found within a second when they are set after the bus
    has started.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        system: str = "",
        server: tuple[str, int] | None = None,
        join: Literal["parent", "link"] = "parent",
        tracers: trace.TracerProvider | None = None,
        meters: metrics.MeterProvider | None = None,
    ) -> None:
        self._clock = clock
        self._now = clock.now  # asked for each message, several times
        self._system = system
        self._at = NOWHERE if server is None else _place(*server)
        self._is_joined = join == "parent"
        self._given = (tracers, meters)
        self._log = FactLog()
        # Changed by _look alone, and only from nothing to something.
        self._tracer: Tracer = trace.NoOpTracer()
        self._instruments: Instruments | None = None
        self._records = False
        self._hears = False
        self._look_at = -math.inf

    @property
    def is_tracing(self) -> bool:
        """Whether an SDK records spans or metrics."""
        if self._now() >= self._look_at:
            self._look()
        return self._records

    @property
    def hears_success(self) -> bool:
        """Whether an SDK counts the messages, or the log wants the least of facts.

        A change of the log's level is noticed within a second.
        """
        if self._now() >= self._look_at:
            self._look()
        return self._hears

    def begin(self, work: Work) -> WorkSpan:
        """Start the span of this work and make it the current one."""
        what = described(work, self._system, self._at)
        if work.kind is Kind.CONSUME:
            return self._begin_handling(work, what)
        if work.kind is Kind.SERVE:
            return self._begin_serving(work, what)
        came = creation(work)
        return _Started(self._tracer.start_span(what.name, came, what.kind, what.attributes), came)

    def attempt(self, work: Work, url: str) -> WorkSpan:
        """Start the span of one attempt at `url`, and time it."""
        if not self.is_tracing:
            return NOTHING
        what = described_attempt(work, url)
        span = self._tracer.start_span(what.name, None, what.kind, what.attributes)
        began = self._clock.now()

        def ended(error: BaseException | None, status: int | None) -> None:
            if self._instruments is not None:
                labels = attempt_labels(work, url)
                if status is not None:
                    labels[names.HTTP_STATUS] = status
                self._instruments.measure_attempt(labels, self._clock.now() - began, error)

        return _Started(span, ended=ended)

    def occupying(self, work: Work) -> AbstractContextManager[object]:
        """Count an attempt that holds a slot; one that began unseen is not counted off either."""
        instruments = self._instruments if self.is_tracing else None
        return _NOT_COUNTED if instruments is None else instruments.occupied(work)

    def carrier(self, work: Work) -> Mapping[str, str]:
        """Headers to send along: the current context, or what came in when nobody records."""
        if self.is_tracing:
            return injected()
        return passed_on(AMBIENT.get() if work.context is None else work.context)

    def moved(self, batch: Moved) -> None:
        """Make the span of a batch, which ends now.

        That of a single message is part of its trace, as its handling is; a larger one links.
        """
        if isinstance(self._tracer, trace.NoOpTracer):
            return
        what = described_batch(batch, self._system, self._at)
        single = len(batch.messages) == 1
        joins = [self._joined(message) for message in batch.messages[:LINKS_MAX]]
        links = [link for _, found in joins for link in found]
        ended = self._clock.wall()
        span = self._tracer.start_span(
            what.name,
            joins[0][0] if single else _NOWHERE,
            what.kind,
            what.attributes,
            links,
            start_time=round((ended - batch.took) * _NANO),
        )
        if batch.error is not None:
            span.set_attribute(names.ERROR_TYPE, error_type(batch.error))
            span.set_status(StatusCode.ERROR, error_text(batch.error))
        span.end(round(ended * _NANO))

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        """Record how long the work took, in seconds."""
        if self.is_tracing and self._instruments is not None:
            self._instruments.measure(work, took, error)

    def tell(self, fact: Fact) -> None:
        """Write the fact to the log and move its metrics."""
        self._log.write(fact)
        if self.is_tracing and self._instruments is not None:
            self._instruments.tell(fact)

    def _look(self) -> None:
        """Find out whether there is an SDK by now."""
        tracers, meters = self._given
        tracers = tracers or trace.get_tracer_provider()
        meters = meters or metrics.get_meter_provider()
        has_tracers, has_meters = _is_real(tracers), _is_real(meters)
        if has_tracers:
            self._tracer = tracers.get_tracer(names.SCOPE, schema_url=names.SCHEMA_URL)
        if has_meters and self._instruments is None:
            meter = meters.get_meter(names.SCOPE, schema_url=names.SCHEMA_URL)
            self._instruments = Instruments(meter, self._system, self._at)
        self._records = has_tracers or has_meters
        self._hears = self._records or self._log.is_detailed
        is_settled = has_tracers and has_meters
        self._look_at = math.inf if is_settled else self._clock.now() + LOOK_EVERY

    def _begin_serving(self, work: Work, what: Described) -> WorkSpan:
        came = extracted(incoming(work))
        here = trace.get_current_span().get_span_context()
        there = trace.get_current_span(came).get_span_context()
        # A span that is current already and of the same trace is the request's own (a framework
        # around us is instrumented too): ours goes under it.
        # So is one within the process: the caller's own.
        is_local = not work.url and CALL_ID in incoming(work)
        is_inside = here.is_valid and (
            is_local or not there.is_valid or here.trace_id == there.trace_id
        )
        parent = otel_context.get_current() if is_inside else came
        span = self._tracer.start_span(what.name, parent, what.kind, what.attributes)
        instruments = self._instruments
        if instruments is None:
            return _Started(span, parent, served=work)
        instruments.active(work, 1)
        return _Started(
            span, parent, served=work, ended=lambda _error, _status: instruments.active(work, -1)
        )

    def _begin_handling(self, work: Work, what: Described) -> WorkSpan:
        parent, links = self._joined(work.message)
        span = self._tracer.start_span(what.name, parent, what.kind, what.attributes, links)
        return _Started(span, parent)

    def _joined(self, message: Message | None) -> tuple[OtelContext, Sequence[Link]]:
        """How what is done with a message joins the trace that it was created in."""
        came = extracted(NO_HEADERS if message is None else message_carrier(message))
        creation = trace.get_current_span(came).get_span_context()
        links: Sequence[Link] = (Link(creation),) if creation.is_valid else ()
        # What is handled again long after belongs to no request that is still under way.
        is_redriven = message is not None and names.REDRIVE_COUNT in message.headers
        if is_redriven or not self._is_joined:
            return trace.set_span_in_context(trace.INVALID_SPAN, came), links  # the baggage stays
        return came, links


class _Started:
    """A span that runs and is current, until `end`."""

    __slots__ = ("_ended", "_served", "_span", "_token")

    def __init__(
        self,
        span: Span,
        context: OtelContext | None = None,
        *,
        served: Work | None = None,
        ended: _Ended | None = None,
    ) -> None:
        self._span = span
        self._served = served
        self._ended = ended
        self._token = otel_context.attach(trace.set_span_in_context(span, context))

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        """End it, and say how."""
        otel_context.detach(self._token)
        span = self._span
        if self._served is not None:
            status = answered_status(self._served, error)
        elif status is None:
            status = status_of(error)
        if status is not None:
            span.set_attribute(names.HTTP_STATUS, status)
        if error is not None:
            self._mark(error, status)
        elif isinstance(outcome, (Later, Dead)):
            span.set_attribute(names.OUTCOME, type(outcome).__name__.lower())
            span.set_attribute(names.ERROR_TYPE, outcome_type(outcome))
            span.set_status(StatusCode.ERROR, outcome_type(outcome))
        span.end()
        if self._ended is not None:
            self._ended(error, status)

    def _mark(self, error: BaseException, status: int | None) -> None:
        # A cancellation is no Exception, and no error of the work: its caller went away.
        if not isinstance(error, Exception):
            return
        # By the conventions a server's 4xx is the caller's error, not the server's.
        if self._served is not None and status is not None and status < _SERVER_ERROR:
            return
        kind = error_type(error, is_served=self._served is not None)
        self._span.set_attribute(names.ERROR_TYPE, kind)
        self._span.set_status(StatusCode.ERROR, error_text(error))


class _Nothing:
    """The span of nobody."""

    __slots__ = ()

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        """Nothing was started."""


NOTHING = _Nothing()


def _is_real(provider: object) -> bool:
    """Whether it is an SDK's, and not one of the stand-ins that the API brings itself."""
    return not type(provider).__module__.startswith(_API)


def _place(host: str, port: int) -> Place:
    return {names.SERVER_ADDRESS: host, names.SERVER_PORT: port}
