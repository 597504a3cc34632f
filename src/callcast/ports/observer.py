"""What is told to the outside: spans around work, and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from callcast.core.message import Message
from callcast.core.outcome import Outcome
from callcast.core.work import Work


class Fact(Struct, frozen=True, tag=True):
    """Something that happened; subclasses have the fields."""


class Retried(Fact, frozen=True):
    """What was decided about a failed attempt, and why.

    `outcome` is retried, exhausted, budget_denied, deadline, circuit_open, or forbidden (the callee
    asks not to be retried, or our own caller is itself retrying).
    """

    name: str
    peer: str
    outcome: str
    attempt: int
    delay: float = 0.0
    error: str = ""


class CircuitChanged(Fact, frozen=True):
    """A breaker went from one state to another: closed, open, half_open, forced_open, ..."""

    peer: str
    before: str
    after: str
    reason: str = ""


class Rejected(Fact, frozen=True):
    """Our own side said no, the callee was never contacted; `by`: bulkhead, circuit, ..."""

    name: str
    peer: str
    by: str


class Settled(Fact, frozen=True):
    """A delivery got its verdict: `outcome` is done, later, dead or release."""

    source: str
    outcome: str
    attempts: int = 1
    queue_time: float = 0.0
    """Seconds from publish to the start of handling."""
    error: str = ""


class LeaseLost(Fact, frozen=True):
    """Settles came too late: `count` messages are somebody else's now; the ids of the first ones.

    An id of a message that has none is empty.
    """

    source: str
    count: int
    message_ids: tuple[str, ...] = ()
    correlation_ids: tuple[str, ...] = ()
    causation_ids: tuple[str, ...] = ()


class DuplicateSeen(Fact, frozen=True):
    """The inbox knew the message: its handler did not run again."""

    consumer: str
    message_id: str


class LoopBlocked(Fact, frozen=True):
    """A handler kept the event loop from running for `took` seconds."""

    handler: str
    took: float


class KillSwitch(Fact, frozen=True):
    """A worker stopped fetching (`open`), tries one message (`trial`), or goes on (`closed`)."""

    source: str
    state: str
    reason: str = ""


class ConsumerRebuilt(Fact, frozen=True):
    """The watchdog replaced a consumer that made no progress while messages waited."""

    source: str
    idle: float


class OutboxAged(Fact, frozen=True):
    """The oldest unsent outbox row is `age` seconds old."""

    service: str
    pending: int
    age: float


class Lagged(Fact, frozen=True):
    """How far a group is behind, told now and then by its worker: counts, and an age in seconds."""

    source: str
    ready: int
    leased: int
    delayed: int
    dead: int
    oldest: float


class Moved(Struct, frozen=True):
    """A batch that went between a broker and a worker."""

    operation: Literal["receive", "settle"]
    topic: str
    group: str
    messages: Sequence[Message]
    took: float
    """Seconds. Of a receive: waiting for the first message too."""
    error: Exception | None = None


class WorkSpan(Protocol):
    """One span around one piece of work; also times it for the metrics."""

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        """End it; `error` sets its status and ``error.type``, and so does a `Later` or `Dead`.

        `status` is the HTTP status of the answer, when there was an answer; `outcome` is what
        the work ended with.
        """
        ...


class Observer(Protocol):
    """Where spans, metrics and facts go. Must not raise and must not block."""

    @property
    def is_tracing(self) -> bool:
        """Whether anybody records: when not, layers skip the spans altogether."""
        ...

    @property
    def hears_success(self) -> bool:
        """Whether anybody wants the `Settled` of each `Done`; when not, it is not even made."""
        return True

    def begin(self, work: Work) -> WorkSpan:
        """Start the span of this work, all its attempts, and make it the current one."""
        ...

    def attempt(self, work: Work, url: str) -> WorkSpan:
        """Start the span of one attempt of a call, make it the current one, and time it.

        A transport that leaves the process calls it for each attempt, also when nobody records
        (it costs next to nothing then). `url` is absolute and without credentials.
        """
        ...

    def occupying(self, work: Work) -> AbstractContextManager[object]:
        """Count an attempt among those that hold a slot of a bulkhead, while it is entered."""
        del work
        return nullcontext()

    def carrier(self, work: Work) -> Mapping[str, str]:
        """`traceparent`, `tracestate`, `baggage` to send along.

        When nobody records, what came in with the ambient work is passed on.
        """
        ...

    def moved(self, batch: Moved) -> None:
        """Make a span of a batch that was fetched or settled just now; asked while tracing only."""
        del batch

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        """Record a duration in the metric that belongs to the work's kind."""
        ...

    def tell(self, fact: Fact) -> None:
        """Take note of a fact: a log line and a metric."""
        ...


class Contract(Protocol):
    """An `Operation` or an `Event`."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class Handling(Protocol):
    """Takes note of the deliveries of one subscription."""

    def __call__(self, message: Message, outcome: Outcome, took: float, *, tries: int) -> None:
        """One verdict, after a handling of `took` seconds that ended now; `tries` were before."""
        ...


@runtime_checkable
class Records(Protocol):
    """An observer that keeps a record of its own of all work, whether or not anybody traces."""

    def note(self, work: Work, took: float, error: BaseException | None) -> None:
        """Take note of a call, a served call or a publish that took so many seconds."""
        ...

    def handling(self, group: str, contract: Contract) -> Handling:
        """Return what is told each verdict of this group on messages of this contract."""
        ...

    def start(self) -> None:
        """Begin to write the record down, now and then. Idempotent."""
        ...

    async def stop(self) -> None:
        """Write down what is left, and end. Idempotent."""
        ...
