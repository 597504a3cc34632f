"""The observer that keeps a record, around the one that tells OpenTelemetry and the log.

Edges are counted for all work. Spans are kept of some (`ring`): while an SDK traces, with the
ids that it gave them; else with derived ones (`ids`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from callcast.core.contract import Operation
from callcast.core.message import Message
from callcast.core.names import REPLIES, REPLY_ERRORS
from callcast.core.outcome import Dead, Done, Later, Outcome, Release
from callcast.core.recorded import CALL_ID, RecordedVerb
from callcast.core.work import CALL, CONSUME, PUBLISH, SERVE, Work
from callcast.ports.clock import Clock
from callcast.ports.observer import Contract, Fact, Handling, Moved, Observer, Retried, WorkSpan
from callcast.telemetry.record import ids, making
from callcast.telemetry.record.book import EDGES_MAX, Line
from callcast.telemetry.record.keeper import Keeper
from callcast.telemetry.record.making import Place, Took
from callcast.telemetry.record.ring import Ring
from callcast.telemetry.spans import described, described_attempt

_OPERATION: type[object] = Operation  # narrowing by the generic class leaves its types unknown


class RecordingObserver:
    """Passes everything on to `inner`, and keeps a record of it.

    `service` is the bus's name, the caller of all that is sent outside of a handler.
    """

    def __init__(
        self, inner: Observer, clock: Clock, *, service: str, system: str, keeper: Keeper
    ) -> None:
        self._inner = inner
        self._clock = clock
        self.now: Callable[[], float] = clock.now
        """Monotonic seconds."""
        self.wall: Callable[[], float] = clock.wall
        """Seconds since the epoch."""
        self._service = service
        self._system = system
        self._keeper = keeper
        self._book = keeper.book
        self._ring = keeper.ring
        # By what is at hand; added to as work comes along.
        self._sent: dict[str, Line] = {}
        self._called: dict[tuple[str, str], Line] = {}
        self._served: dict[str, Line] = {}

    # What is passed on

    @property
    def is_tracing(self) -> bool:
        """Whether the other one does."""
        return self._inner.is_tracing

    @property
    def hears_success(self) -> bool:
        """Whether the other one does: the record is told by `handling`."""
        return self._inner.hears_success

    def begin(self, work: Work) -> WorkSpan:
        """Start the span; asked for while an SDK records."""
        before = trace.get_current_span().get_span_context()
        span = self._inner.begin(work)
        place = _placed(making.place_of(work), before, work)
        return _Kept(span, self, work=work, place=place)

    def attempt(self, work: Work, url: str) -> WorkSpan:
        """Start the span of an attempt."""
        before = trace.get_current_span().get_span_context()
        span = self._inner.attempt(work, url)
        place = None
        if self._inner.is_tracing:
            place = _placed(making.place_of_attempt(work), before, work)
        return _Kept(span, self, work=work, place=place, url=url)

    def occupying(self, work: Work) -> AbstractContextManager[object]:
        """Pass it on."""
        return self._inner.occupying(work)

    def carrier(self, work: Work) -> Mapping[str, str]:
        """What the other one sends along; with a call its id, where no tracer tells it apart."""
        carrier = self._inner.carrier(work)
        if work.kind is CALL and work.id and not self._inner.is_tracing:
            return {**carrier, CALL_ID: work.id}
        return carrier

    def moved(self, batch: Moved) -> None:
        """Pass it on."""
        self._inner.moved(batch)

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        """Pass it on, and count it: while an SDK records, this is asked instead of `note`."""
        self._inner.measure(work, took, error)
        if work.kind is not CONSUME:
            self._count(work, took, error)

    def tell(self, fact: Fact) -> None:
        """Pass it on; a retry is one attempt more."""
        self._inner.tell(fact)
        if isinstance(fact, Retried):
            line = self._called.get((self._service, fact.name)) or self._sent.get(fact.name)
            if line is not None:
                line.failed_attempts += 1
                if fact.outcome == "retried":
                    line.extra_attempts += 1

    # What is recorded

    def start(self) -> None:
        """Begin to write the record down. Idempotent."""
        self._keeper.start(self._clock.wall)

    async def stop(self) -> None:
        """Write what is left, and end. Idempotent."""
        await self._keeper.stop(self._clock)

    def finish(self) -> None:
        """Write down all that was noted until now, in this thread."""
        self._keeper.finish(self._clock.wall())

    def note(self, work: Work, took: float, error: BaseException | None) -> None:
        """Count a call, a served call or a publish, and keep its span if it is wanted."""
        message = work.message
        if error is None and message is not None and message.causation_id is None:
            # What most programs publish most of; written flat, for each name looked up costs.
            line = self._sent.get(work.name) or self._publishing(work, message)
            line.took.append(took)
            if took <= line.slow and self._ring.traces_left <= 0:
                return
        else:
            line = self._count(work, took, error)
        correlation = making.correlation_of(work)
        failed = isinstance(error, Exception)
        if self._ring.wants(correlation, failed=failed, slow=took > line.slow):
            self.keep(work, making.place_of(work), self._ended(took, work, error))

    def handling(self, group: str, contract: Contract) -> Handling:
        """Return what counts the verdicts of one subscription."""
        return _Handlings(self, group, contract).told()

    def keep(self, work: Work, place: Place, took: Took, *, url: str = "") -> None:
        """Keep the span of this work, or of its attempt at `url`."""
        what = described_attempt(work, url) if url else described(work, self._system)
        service = self.service_of(work)
        self._ring.keep(making.span_of(work, what, service=service, place=place, took=took))

    def wants(self, work: Work, *, failed: bool) -> bool:
        """Whether a span that a tracer has made is to be kept."""
        return self._ring.wants(making.correlation_of(work), failed=failed, slow=False)

    def line(self, message: Message, callee: str, contract: Contract) -> Line:
        """The callee's side of the edge of such messages."""
        name = _name_of(contract.name)
        return self._book.line((message.source, callee, name, _verb(contract, message), "callee"))

    @property
    def ring(self) -> Ring:
        """The spans that are kept."""
        return self._ring

    def service_of(self, work: Work) -> str:
        """Whose span it is: of the handler that runs, or of what runs outside of any."""
        if work.kind is SERVE or work.kind is CONSUME:
            return work.peer
        context = making.context_around(work)
        if context is not None and context.service:
            return context.service
        return self._service if work.message is None else work.message.source

    def _ended(self, took: float, work: Work, error: BaseException | None) -> Took:
        failure = making.failure_of(error, is_served=work.kind is SERVE)
        return Took(self._clock.wall() - took, took, failure)

    def _count(self, work: Work, took: float, error: BaseException | None) -> Line:
        if work.kind is PUBLISH and work.message is not None:
            line = self._sent.get(work.name) or self._publishing(work, work.message)
            if work.message.causation_id is not None:
                line.fan(making.correlation_of(work))
        elif work.kind is SERVE:
            line = self._served.get(work.name) or self._serving(work)
        else:
            line = self._calling(work)
        line.took.append(took)
        if error is not None:
            line.lost += 1
            line.failed_attempts += 1
            line.fail(making.failure_of(error, is_served=work.kind is SERVE) or "cancelled")
        return line

    def _publishing(self, work: Work, message: Message) -> Line:
        """The edge of what this bus publishes under this name."""
        verb = _verb(work.contract, message)
        callee = "" if verb == "publish" else str(getattr(work.contract, "service", ""))
        name = _name_of(work.name)
        line = self._book.line((message.source, callee, name, verb, "caller"))
        if name == work.name:  # of reply addresses there is no end
            self._sent[name] = line
        return line

    def _serving(self, work: Work) -> Line:
        line = self._book.line(("", work.peer, work.name, "call", "callee"))
        self._served[work.name] = line
        return line

    def _calling(self, work: Work) -> Line:
        context = work.context
        caller = context.service if context is not None and context.service else self._service
        key = (caller, work.name)
        line = self._called.get(key)
        if line is None:
            line = self._book.line((caller, work.peer, work.name, "call", "caller"))
            self._called[key] = line
        if context is not None:
            line.fan(context.correlation_id)
        return line


class _Kept:
    """A span that the other observer has begun; kept in the record when it ends."""

    __slots__ = ("_began", "_observer", "_place", "_span", "_url", "_work")

    def __init__(
        self,
        span: WorkSpan,
        observer: RecordingObserver,
        *,
        work: Work,
        place: Place | None,
        url: str = "",
    ) -> None:
        self._span = span
        self._observer = observer
        self._work = work
        self._place = place
        self._url = url
        self._began = observer.now()

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        """End it, and keep it if it is wanted."""
        self._span.end(error, status=status, outcome=outcome)
        observer, work = self._observer, self._work
        failure = making.failure_of(error, is_served=work.kind is SERVE)
        if isinstance(outcome, (Later, Dead)):
            failure = making.failure_in(outcome)
        if observer.wants(work, failed=bool(failure)):
            took = observer.now() - self._began
            ended = Took(observer.wall() - took, took, failure)
            place = self._place or making.place_of_attempt(work)
            observer.keep(work, place, ended, url=self._url)


class _Handlings:
    """Counts the verdicts of one subscription, by the sender of the message."""

    def __init__(self, observer: RecordingObserver, group: str, contract: Contract) -> None:
        self._observer = observer
        self._group = group
        self._contract = contract

    def told(self) -> Handling:
        """The function that is told each verdict: what it needs is at hand, not looked up."""
        ring, wall, new, failed = self._observer.ring, self._observer.wall, self._line, _failed
        lines: dict[str, Line] = {}

        def told(message: Message, outcome: Outcome, took: float, *, tries: int) -> None:
            source = message.source
            line = lines.get(source)
            if line is None:
                line = new(message)
                if len(lines) < EDGES_MAX:  # strangers may have any number of sources
                    lines[source] = line
            is_done = type(outcome) is Done
            if not is_done and not failed(line, outcome):
                return
            line.took.append(took)
            line.waited.append(wall() - took - message.time)
            slow = took > line.slow
            correlation = message.correlation_id or message.id
            if is_done and not slow and ring.traces_left <= 0 and correlation not in ring.followed:
                return
            if ring.wants(correlation, failed=not is_done, slow=slow):
                self._keep(message, outcome, took, tries=tries)

        return told

    def _line(self, message: Message) -> Line:
        return self._observer.line(message, self._group, self._contract)

    def _keep(self, message: Message, outcome: Outcome, took: float, *, tries: int) -> None:
        observer = self._observer
        if observer.is_tracing:  # its span has come by `begin` already
            return
        work = Work(
            CONSUME,
            self._contract.name,
            message.id,
            self._contract,
            self._group,
            message=message,
            round=tries,
        )
        ended = Took(observer.wall() - took, took, making.failure_in(outcome))
        observer.keep(work, making.place_of(work), ended)


def _failed(line: Line, outcome: Outcome) -> bool:
    """Count a verdict that is not `Done`; False for one that was no attempt."""
    if isinstance(outcome, Release):
        return False
    line.fail(type(outcome).__name__.lower())
    line.failed_attempts += 1
    if isinstance(outcome, Dead):
        line.lost += 1
    else:
        line.put_off += 1
    return True


def _verb(contract: object, message: Message) -> RecordedVerb:
    if not isinstance(contract, _OPERATION):
        return "publish"
    return "request" if REPLY_ERRORS in message.headers else "cast"


def _name_of(name: str) -> str:
    """The name of an edge: that of the contract, and one for the addresses of all replies."""
    return REPLIES.rstrip(".") if name.startswith(REPLIES) else name


def _placed(derived: Place, before: SpanContext, work: Work) -> Place:
    """The place that the tracer gave the span which is current now; the derived one without it."""
    here = trace.get_current_span().get_span_context()
    if not here.is_valid or here == before:
        return derived
    trace_id = trace.format_trace_id(here.trace_id)
    parent = trace.format_span_id(before.span_id) if before.is_valid else ""
    links = derived.links
    if work.kind is CONSUME and work.message is not None:
        came = making.incoming_trace(work.message)
        if came[0] == trace_id:
            parent = came[1]
        else:
            parent, links = "", (came,)
    elif work.kind is SERVE and (not parent or trace.format_trace_id(before.trace_id) != trace_id):
        parent = "" if work.context is None else ids.came(work.context.headers)[1]
    return Place(trace_id, trace.format_span_id(here.span_id), parent, links)
